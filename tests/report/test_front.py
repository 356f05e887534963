"""Which network of a front is recommended, and what people see of it."""

import json

from mmcr.report.front import Front, Point, recommended, write_front_page


def point(cost, score, expected=None, place=None):
    arch = dict(stage1=round(10 * cost), stage2=round(100 * score))
    return Point(arch, score, score if expected is None else expected, cost, place)


CHEAP = point(0.5, 0.30, place=0)
LUCKY = point(0.8, 0.40, 0.31, place=1)
SOLID = point(1.0, 0.41, 0.40, place=2)
DEAR = point(2.0, 0.45, 0.44, place=3)
BEHIND = point(0.9, 0.35, 0.50)  # not on the front, whatever is expected
POINTS = [DEAR, BEHIND, CHEAP, SOLID, LUCKY]


def test_recommended_is_the_best_expected_up_to_a_cost():
    found = recommended(POINTS, (2, 0.4, 0.9, 1.0, 1.5))
    assert found == {0.9: LUCKY, 1.0: SOLID, 1.5: SOLID, 2: DEAR}
    worse = point(0.85, 0.405, 0.2, place=4)
    assert recommended([*POINTS, worse], (0.9,)) == {0.9: LUCKY}
    assert recommended([point(0.1 + 0.2, 0.3, place=0)], (0.3,))


def test_the_page_tells_recommended_from_the_runs_best(tmp_path):
    luckiest = point(1.9, 0.5, 0.42, place=5)
    points = [point for point in POINTS if point is not DEAR] + [luckiest]
    trained = {'R34': (1.8, 43.0)}
    front = Front(points, (0.5, 1, 2), 'macs', BEHIND, trained)
    text = write_front_page(tmp_path / 'new', front)
    assert text == (tmp_path / 'new/front.md').read_text()
    lines = text.splitlines()
    assert lines[2] == '| 0 | 5 30 | 0.50 | 30.00 | 30.00 | recommended up to 0.5 |'
    assert lines[3].endswith('| 40.00 | 31.00 |  |')
    assert lines[4].endswith('| recommended up to 1 |')
    assert lines[5] == (
        "| 5 | 19 50 | 1.90 | 50.00 | 42.00 | recommended up to 2; the run's best |"
    )
    assert lines[-1] == 'Trained by you, cost and AP: R34 1.80, 43.00.'
    record = json.loads((tmp_path / 'new/front.json').read_text())
    assert list(record['recommended']) == ['0.5', '1', '2']
    assert record['recommended']['1']['place'] == 2
    assert record['best_of_run']['arch'] == dict(stage1=19, stage2=50)
    assert record['baseline']['place'] is None
    assert record['trained'] == {'R34': [1.8, 43.0]}
    again = Front.from_json(record)
    assert [again.said(point) for point in again.members] == [
        front.said(point) for point in front.members
    ]
    assert len(again.points) == len(points) and again.own == BEHIND
    assert (tmp_path / 'new/front.png').read_bytes().startswith(b'\x89PNG')


def test_the_runs_best_may_be_none_that_is_recommended(tmp_path):
    text = write_front_page(tmp_path, Front(POINTS, (0.5, 1), 'ms'))
    (line,) = [
        line for line in text.splitlines() if "the run's best" in line and '|' in line
    ]
    assert line.startswith('| 3 |') and 'recommended' not in line
    assert json.loads((tmp_path / 'front.json').read_text())['baseline'] is None
