"""A new searcher is one class and one registration; all else knows it by that."""

import json
from pathlib import Path
from runpy import run_path

import pytest

from mmcr.errors import UserError
from mmcr.registry import TASK_UTILS
from mmcr.report import write_report
from mmcr.search import Complete, Journal, Proposal, Searcher, Trial, run_search
from mmcr.space import resnet_stage_space

TOOL = Path(__file__).parents[2] / 'tools/search.py'


@TASK_UTILS.register_module()
class Every(Searcher):
    """Asks for every so-manieth member, then for the neighbours of the best."""

    kind = 'every'
    options = ('step',)
    fast = 'mmcr.Every'
    about = dict(method='Members far apart, then those near the best.', round='lap')

    def __init__(self, space, step=10):
        super().__init__(space)
        self.step = step

    def rounds(self):
        archs = list(self.space)
        trials = yield [Proposal(Complete(arch)) for arch in archs[:: self.step]]
        best = max(trials, key=lambda trial: trial.score)
        place = archs.index(best.proposal.candidate.arch)
        yield [Proposal(Complete(arch)) for arch in archs[place + 1 : place + 3]]

    @property
    def total(self):
        return self.space.size


def evaluate(proposals):
    for proposal in proposals:
        yield Trial(proposal, 1 / proposal.candidate.arch['stage3'])


def test_it_searches_resumes_and_has_a_report(tmp_path):
    def search():
        searcher = TASK_UTILS.build(
            dict(type='mmcr.Every', space=resnet_stage_space(16))
        )
        header = dict(space=searcher.space.to_json(), searcher=searcher.to_json())
        journal = Journal(tmp_path / 'trials.jsonl', header)
        return run_search(searcher, evaluate, journal.scores, journal.append)

    best = search()
    header, *entries = (tmp_path / 'trials.jsonl').read_text().splitlines()
    assert json.loads(header)['searcher'] == {
        'kind': 'every',
        'step': 10,
        'about': dict(Every.about),
    }
    rounds = [json.loads(entry)['round'] for entry in entries]
    assert rounds == [0] * 16 + [1] * 2
    assert search() == best
    page = write_report(tmp_path).read_text()
    assert '<h2>Laps</h2>' in page and Every.about['method'] in page
    assert str(list(best.proposal.candidate.arch.values())) in page


@pytest.mark.parametrize(
    'searcher, quicker',
    [
        ('mmcr.Every', 'mmcr.Every'),
        ('mmcr.ExhaustiveSearcher', 'mmcr.HalvingSearcher'),
        ('mmcr.HalvingSearcher', 'mmcr.HalvingSearcher'),
        ('mmcr.GreedySearcher', 'mmcr.RacingGreedySearcher'),
        ('mmcr.RacingGreedySearcher', 'mmcr.RacingGreedySearcher'),
    ],
)
def test_fast_is_what_it_says(searcher, quicker):
    assert run_path(str(TOOL))['fast'](searcher) == quicker


@pytest.mark.parametrize('searcher', ['mmcr.EvolutionSearcher', 'mmcr.NoSuch'])
def test_fast_of_one_that_says_none(searcher):
    with pytest.raises(UserError, match=f'GreedySearcher.* {searcher} has none'):
        run_path(str(TOOL))['fast'](searcher)
