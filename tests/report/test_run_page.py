"""The page of a run, from its first step to its verdict."""

import json

import pytest
from pages import Page, search

from mmcr.cost.complexity import Complexity, Cost
from mmcr.report.comparison import Row, write_comparison
from mmcr.report.contest_table import ContestTable, read_contest
from mmcr.report.front import Front, Point, write_front_page
from mmcr.report.pages import pictures as drawing
from mmcr.report.pages.pictures import pictures
from mmcr.report.pages.run_page import Plan, RunPage, progress
from mmcr.report.paired import Difference
from mmcr.search import ExhaustiveSearcher
from mmcr.space import resnet_stage_space

SUPERNET, SEARCH, RUN_OFF, JUDGING = '01_net', '02_search', '05_run_off', '06_judging'
OWN = dict(stage1=3, stage2=4, stage3=6, stage4=3)


def plan(work_dir, **changes):
    steps = SUPERNET, SEARCH, RUN_OFF, JUDGING
    made = dict(
        name='mine & yours',
        work_dir=work_dir,
        about='Detector: A <b>.\nData: 9 images.',
        titles=dict(zip(steps, ('stage supernet', 'search', 'run-off', 'judging'))),
        estimates={step: (60.0 * i, 2**30) for i, step in enumerate(steps, start=1)},
        trainings={RUN_OFF: 3, JUDGING: 4},
        searches={SEARCH: OWN},
        baseline='baseline',
        metric='coco/bbox_mAP',
        jobs=2,
    )
    return Plan(**{**made, **changes})


def did(folder, seconds=30, ap=None):
    """Leaves what a step that is done leaves."""
    folder.mkdir(parents=True)
    state = dict(conditions={}, done=True, seconds=seconds)
    (folder / 'step.json').write_text(json.dumps(state))
    if ap is not None:
        (folder / 'test/1').mkdir(parents=True)
        said = json.dumps({'coco/bbox_mAP': ap / 100})
        (folder / 'test/1/1.json').write_text(said)


def began_run_off(work_dir):
    trial = dict(score=0.31, expected=0.305, decided=dict(stage_blocks=[4, 5, 4, 3]))
    state = dict(candidates=[dict(trial, name='stage_1'), dict(trial, name='stage_2')])
    (work_dir / 'run_off.json').write_text(json.dumps(state))


def compare(work_dir, differences):
    cost = Complexity({'backbone': Cost(2 * 10**9, 10**6)}, (64, 64), 'mmengine', {})
    rows = [
        Row('baseline', (3, 4, 6, 3), complexity=cost, metrics={'bbox_mAP': 0.3}),
        Row('found', (4, 5, 4, 3), complexity=cost, metrics={'bbox_mAP': 0.32}),
    ]
    use, warning = 'mine.py', 'Mind <this>.'
    write_comparison(
        rows, work_dir / 'result', Difference(differences), use=use, warning=warning
    )


@pytest.fixture
def work(tmp_path):
    """A page that may not fail, and a function that writes and reads it."""
    page = RunPage(plan(tmp_path), pytest.fail)

    def written():
        page.write()
        return Page(tmp_path / 'result/report.html')

    return tmp_path, written


def test_from_the_first_step_to_the_verdict(work):
    folder, written = work
    words = written().words
    assert words.startswith('Reallocation report: mine & yours')
    assert 'No verdict yet: 0 of 4 steps are done. Next: stage supernet.' in words
    assert 'Detector: A <b>. Data: 9 images.' in words
    assert '01_net to come 0:01:00 - 1.0 GiB' in words
    assert '05_run_off to come (3) 0:03:00 -' in words
    assert 'all 0:10:00 0:00:00' in words and 'Run-off' not in words

    did(folder / SUPERNET, 66)
    search(folder / SEARCH, ExhaustiveSearcher(resnet_stage_space(16)), finish=False)
    words = written().words
    assert '1 of 4 steps are done. Next: search.' in words
    assert '01_net done 0:01:00 0:01:06' in words
    assert 'search is not finished' in words and '153 in all' in words
    assert '[3, 4, 6, 3] (baseline)' in words

    (folder / SEARCH / 'step.json').write_text(json.dumps(dict(done=True, seconds=9)))
    search(folder / SEARCH, ExhaustiveSearcher(resnet_stage_space(16)))
    same = dict(arch=OWN, behind=1.0, low=-0.5, high=2.5)
    found = dict(of=2, images=7, same=[dict(same, behind=0.0), same])
    (folder / SEARCH / 'not_told_apart.json').write_text(json.dumps(found))
    (folder / SEARCH / 'console.log').write_text('a\nb - Gate: 7 images can tell\nc\n')
    began_run_off(folder)
    did(folder / RUN_OFF / 'baseline_seed10', 40, 30.0)
    did(folder / RUN_OFF / 'stage_1_seed10', 60, 31.5)
    words = written().words
    assert 'Gate: 7 images can tell' in words and 'A bar is where' in words
    assert '(-0.50 to 2.50) AP' in words and 'search is not finished' not in words
    # two side by side
    assert '05_run_off 2 of 3 0:03:00 0:00:50' in words
    assert 'stage_1 4 5 4 3 31.00 30.50 +1.50 AP (1 seed) 31.50' in words
    assert 'stage_2 4 5 4 3 31.00 30.50 - -' in words

    did(folder / RUN_OFF / 'stage_2_seed10', 40, 29.0)
    for seed, (own, other) in enumerate(((30, 32), (31, 32))):
        did(folder / JUDGING / f'baseline_seed{seed}', 60, own)
        did(folder / JUDGING / f'stage_1_seed{seed}', 60, other)
    compare(folder, [2.0, 1.0])
    page = written()
    verdict = 'No difference between found and baseline that 2 seeds can see'
    assert page.words.index(verdict) < page.words.index('Plan')
    assert 'Found is stage_1: 4 5 4 3. Use mine.py. Mind <this>.' in page.words
    assert '06_judging done (4) 0:04:00 0:02:00' in page.words
    assert '+1.50 AP (-4.85 to +7.85, p = 0.5, 2 seeds) 32.00 32.00' in page.words
    assert 'found [4, 5, 4, 3] 2.00 G (100%) 1.00 M (100%) 32.00' in page.words
    assert not page.loads and not {'script', 'link'} & set(page.tags)


def test_a_verdict_of_fewer_seeds_is_called_so(work):
    folder, written = work
    did(folder / SUPERNET)
    did(folder / SEARCH)
    for name in ('baseline', 'stage_1', 'stage_2'):
        did(folder / RUN_OFF / f'{name}_seed10', ap=30)
    compare(folder, [2.0])
    assert 'Of 1 of 2 seeds: the others are to come.' in written().words
    (folder / SEARCH / 'step.json').unlink()  # it is run anew
    assert 'No verdict yet' in written().words


def test_the_front_is_shown(work):
    folder, written = work
    points = [Point(OWN, 0.3, 0.29, 1.0, 0), Point(dict(stage1=1), 0.2, 0.2, 0.5)]
    write_front_page(folder / 'result', Front(points, (1,), 'macs', points[0]))
    row = "0 3 4 6 3 1.00 30.00 29.00 recommended up to 1; the run's best; the baseline"
    words = written().words
    assert row in words and 'Cost: macs of the backbone' in words


def test_nothing_that_is_wrong_with_a_page_stops_a_run(tmp_path):
    said = []
    page = RunPage(plan(tmp_path), said.append)
    for name, damage in (
        ('run_off.json', '[]'),
        ('run_off.json', '{"candidates": [3]}'),
        ('result/comparison.json', '{"networks": 5}'),
        ('02_search/trials.jsonl', 'torn'),
        ('01_net/step.json', '{"done": true}'),
    ):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(damage)
        page.write()
        assert len(said) in (0, 1) and all('could not be written' in s for s in said)
        said.clear()
        path.unlink()
    backends = dict(vis_backends=[dict(type='NoneOfThese')])
    visualizer = dict(type='mmdet.DetLocalVisualizer', name='wrong', **backends)
    page = RunPage(plan(tmp_path, visualizer=visualizer, searches={}), said.append)
    page.finish(dict(baseline=(tmp_path / 'none.py', 'none.pth')))
    assert 'No pictures (FileNotFoundError' in said.pop(0)
    assert 'No curves (KeyError' in said[0] and 'NoneOfThese' in said[0]
    assert 'No verdict yet' in Page(page.path).words and len(said) == 1
    (tmp_path / 'elsewhere').write_text('')
    RunPage(plan(tmp_path / 'elsewhere'), said.append).write()
    assert 'NotADirectoryError' in said[1]


def test_what_was_drawn_is_not_drawn_again(tmp_path, monkeypatch):
    weights, said, calls = tmp_path / 'a.pth', [], []
    weights.write_bytes(b'a')
    trained = dict(baseline=(tmp_path / 'a.py', str(weights)))

    def draw(trained):
        calls.append(trained)
        print('loading annotations')
        return dict(sides={}, figure='<svg></svg>')

    def fail(trained):
        raise MemoryError('9 GiB')

    monkeypatch.setattr(drawing, '_fields', draw)
    monkeypatch.setattr(drawing, '_detections', fail)
    drawn = pictures(trained, tmp_path / 'p.json', said.append)
    assert said == ['No detections on the page (MemoryError: 9 GiB).']
    assert 'fields' in drawn and not (tmp_path / 'p.json').exists()
    monkeypatch.setattr(drawing, '_detections', draw)
    whole = pictures(trained, tmp_path / 'p.json', said.append)
    assert len(calls) == 3 and 'detections' in whole
    assert pictures(trained, tmp_path / 'p.json', said.append) == whole
    assert len(calls) == 3
    weights.write_bytes(b'trained anew')
    pictures(trained, tmp_path / 'p.json', said.append)
    assert len(calls) == 5 and len(said) == 1


def test_a_contest_that_is_under_way(tmp_path):
    did(tmp_path / 'baseline_seed3', ap=30)
    did(tmp_path / 'baseline_seed4', ap=32)
    did(tmp_path / 'a_seed3', ap=31)
    did(tmp_path / 'a_seed4', ap=34)
    did(tmp_path / 'b_seed4', ap=31)
    did(tmp_path / 'b_seed3', ap=40)
    (tmp_path / 'b_seed3/step.json').write_text('{"done": false}')  # it is tested anew
    table = read_contest(tmp_path, 'coco/bbox_mAP', 'baseline')
    assert table.seeds == [3, 4] and list(table.aps['b']) == [4]
    by_seed = {name: list(d.by_seed) for name, d in table.differences.items()}
    assert by_seed == {'a': pytest.approx([1, 2]), 'b': pytest.approx([-1])}
    assert table.noise == pytest.approx(0.5**0.5)
    (axes,) = table.figure().axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ['a', 'b']
    seeds = axes.collections[0].get_offsets()[:, 0]
    assert list(seeds) == pytest.approx([1, 2])
    assert not ContestTable({'a': {1: 30.0}}, 'baseline').differences


def test_a_contest_without_trainings_is_left_out(tmp_path):
    *_, run_off, judging = progress(plan(tmp_path, trainings={RUN_OFF: 0, JUDGING: 6}))
    assert run_off.state == 'left out' and run_off.is_done
    assert judging.state == 'to come (6)' and not judging.is_done
