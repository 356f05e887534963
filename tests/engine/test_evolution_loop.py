"""Evolution by the search loop: results, resume, report."""

import json

import pytest
from mmengine.config import Config
from mmengine.runner import Runner
from tiny import OPERATION, STAGE, search_cfg, write_checkpoint

from mmcr.errors import UserError
from mmcr.report.search_page import read_search, write_report

pytestmark = pytest.mark.usefixtures('quiet_mmdet')

EVOLUTION = dict(
    type='mmcr.EvolutionSearcher',
    population=3,
    generations=2,
    top=2,
    mutations=1,
    crossovers=1,
    pareto=True,
)
# of all: every architecture meets it
MACS = dict(type='macs', limit=1e12, shape=(96, 96), of='detector')
OPTIONS = dict(searcher=EVOLUTION, budget=MACS, group_size=2)


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp('supernet') / 'stage.pth', STAGE)


@pytest.fixture(scope='module')
def finished(shapes, checkpoint, tmp_path_factory):
    work_dir = tmp_path_factory.mktemp('front')
    search(shapes, work_dir, checkpoint)
    return work_dir


def search(shapes, work_dir, checkpoint, **more):
    cfg = search_cfg(shapes, work_dir, checkpoint, **{**OPTIONS, **more})
    return Runner.from_cfg(cfg).test()


def results(work_dir):
    return {
        str(path.relative_to(work_dir)): path.read_bytes()
        for pattern in ('best_arch.*', 'front.json', 'trials.jsonl')
        for path in work_dir.rglob(pattern)
    }


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


@pytest.mark.parametrize('lines', [1, 3, 4, 6])
def test_a_journal_cut_anywhere_goes_on(finished, shapes, checkpoint, tmp_path, lines):
    whole = (finished / 'trials.jsonl').read_bytes().splitlines(keepends=True)
    torn = b''.join(whole[:lines]) + whole[lines][:30]
    (tmp_path / 'trials.jsonl').write_bytes(torn)
    search(shapes, tmp_path, checkpoint)
    assert results(tmp_path) == results(finished)


def test_several_budgets_have_a_front_each(finished, shapes, checkpoint, tmp_path):
    blocks = dict(type='params', limit=1e12)
    search(shapes, tmp_path, checkpoint, budget=[MACS, blocks])
    alone = results(finished)
    for name in ('best_arch.json', 'front.json', 'front/0/best_arch.py'):
        path = tmp_path / 'budget_macs_max1e12_detector_96x96' / name
        assert path.read_bytes() == alone[name]
    assert front_of(tmp_path / 'budget_params_max1e12')
    first, second = read_search(tmp_path).histories
    assert (first.unit, second.unit) == ('multiply-accumulates', 'parameters')


def test_blocks_are_a_cost_without_a_budget(shapes, checkpoint, tmp_path):
    search(shapes, tmp_path, checkpoint, budget=None)
    for member in front_of(tmp_path):
        assert member['cost'] == sum(member['arch'].values())
    (history,) = read_search(tmp_path).histories
    assert history.front and history.unit == 'cost'


def test_dilations_have_no_cost_of_their_own(shapes, tmp_path):
    checkpoint = write_checkpoint(tmp_path / 'operation.pth', OPERATION)
    cfg = search_cfg(shapes, tmp_path, checkpoint, OPERATION, searcher=EVOLUTION)
    with pytest.raises(UserError, match='leave pareto out'):
        Runner.from_cfg(cfg).test()
