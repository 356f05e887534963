"""Evolution by the search loop: results and report."""

import json

import pytest
from mmengine.config import Config
from searches import EVOLUTION, MACS, search

from mmcr.errors import UserError
from mmcr.report.pages.search_page import read_search, write_report

pytestmark = pytest.mark.usefixtures('quiet_mmdet')


@pytest.fixture(scope='module')
def finished(supernets, tmp_path_factory):
    work_dir = tmp_path_factory.mktemp('front')
    search(supernets, work_dir, 'evolution')
    return work_dir


def front_of(work_dir):
    return json.loads((work_dir / 'front.json').read_text())


def test_the_front_is_written(finished):
    _, *trials = map(json.loads, (finished / 'trials.jsonl').read_text().splitlines())
    assert len(trials) == 6
    scores = {json.dumps(t['candidate']['arch']): t['score'] for t in trials}
    front = front_of(finished)
    ends = [(member['cost'], member['score']) for member in front]
    assert ends == sorted(ends) and len(set(ends)) == len(ends)
    for i, member in enumerate(front):
        assert scores[json.dumps(member['arch'])] == member['score']
        folder = finished / f'front/{i}'
        record = json.loads((folder / 'best_arch.json').read_text())
        assert record['arch'] == member['arch'] and record['score'] == member['score']
        fragment = Config.fromfile(folder / 'best_arch.py')
        assert fragment.cr_backbone.stage_blocks == tuple(member['arch'].values())
    best = json.loads((finished / 'best_arch.json').read_text())
    assert best['score'] == max(scores.values()) == front[-1]['score']


def test_the_report_shows_it(finished):
    found = read_search(finished)
    (history,) = found.histories
    assert found.finished and [len(step.scored) for step in history.steps] == [3, 3]
    assert [(s.arch, history.costs[s.arch]) for s in history.front] == [
        (member['arch'], member['cost']) for member in front_of(finished)
    ]
    text = write_report(finished).read_text()
    assert f'{front_of(finished)[0]["cost"]:,}' in text
    assert '<h2>Front</h2>' in text and 'multiply-accumulates' in text


def test_several_budgets_have_a_front_each(finished, supernets, tmp_path):
    budgets = [MACS, dict(type='params', limit=1e12)]
    search(supernets, tmp_path, 'evolution', budget=budgets)
    for name in ('best_arch.json', 'front.json', 'front/0/best_arch.py'):
        path = tmp_path / 'budget_macs_max1e12_detector_96x96' / name
        assert path.read_bytes() == (finished / name).read_bytes()
    assert front_of(tmp_path / 'budget_params_max1e12')
    first, second = read_search(tmp_path).histories
    assert (first.unit, second.unit) == ('multiply-accumulates', 'parameters')


def test_blocks_are_a_cost_without_a_budget(supernets, tmp_path):
    search(supernets, tmp_path, 'evolution', budget=None)
    for member in front_of(tmp_path):
        assert member['cost'] == sum(member['arch'].values())
    (history,) = read_search(tmp_path).histories
    assert history.front and history.unit == 'cost'


def test_dilations_have_no_cost_of_their_own(supernets, tmp_path):
    with pytest.raises(UserError, match='leave pareto out'):
        search(supernets, tmp_path, 'greedy', searcher=EVOLUTION)
