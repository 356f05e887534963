from collections import Counter

import pytest
from answers import evaluate, find, rounds

from mmcr.errors import UserError
from mmcr.search import (
    ExhaustiveSearcher,
    GreedySearcher,
    HalvingSearcher,
    JointSearcher,
    RacingGreedySearcher,
    run_search,
)
from mmcr.space import operation_space, resnet_stage_space

KINDS = {
    'exhaustive': ExhaustiveSearcher,
    'halving': HalvingSearcher,
    'greedy': GreedySearcher,
    'racing': RacingGreedySearcher,
}
BUDGETS = (8, 9, 16)


def by_budget(kind):
    return {str(n): KINDS[kind](resnet_stage_space(n)) for n in BUDGETS}


def bests(joint):
    return {name: searcher.best() for name, searcher in joint.searchers.items()}


class TestJoint:
    @pytest.mark.parametrize('kind', KINDS)
    def test_each_search_finds_what_it_finds_alone(self, kind):
        alone, recorded = {}, []
        for name, searcher in by_budget(kind).items():
            alone[name] = run_search(searcher, evaluate, {}, recorded.append)
        together = []
        joint = JointSearcher(by_budget(kind))
        best = run_search(joint, evaluate, {}, together.append)
        assert bests(joint) == alone
        assert best == max(alone.values(), key=lambda trial: trial.score)
        assert {t.proposal.key for t in together} == {t.proposal.key for t in recorded}

    def test_a_round_is_the_union_of_rounds(self):
        asked = rounds(JointSearcher(by_budget('halving')))
        # 9, 16 and 153 members on a sixteenth, then 8 on all while 153 go on
        assert [Counter(t.proposal.portion[1] for t in trials) for trials in asked] == [
            {1 / 16: 9 + 16 + 153},
            {1: 8 + 8, 1 / 4: 39},
            {1: 10},
        ]

    def test_what_several_ask_is_scored_once(self):
        def searchers():
            return {
                'exhaustive': ExhaustiveSearcher(resnet_stage_space(8)),
                # asks for members on all of archval after a round of its own
                'halving': HalvingSearcher(resnet_stage_space(8)),
                'again': ExhaustiveSearcher(resnet_stage_space(8)),
            }

        evaluated, recorded = [], []

        def logged(proposals):
            evaluated.extend(proposals)
            return evaluate(proposals)

        joint = JointSearcher(searchers())
        run_search(joint, logged, {}, recorded.append)
        assert len(evaluated) == len({p.key for p in evaluated}) == 9 + 9
        # what halving asks again in its second round is noted there
        again = [t for t in recorded if t.round == 1]
        assert len(again) == 8 and {t.asked_by for t in again} == {('halving',)}
        assert recorded[0].asked_by == ('exhaustive', 'again')
        assert joint.total == 9 + 17 + 9
        alone = {name: find(searcher) for name, searcher in searchers().items()}
        assert bests(joint) == alone

    def test_budgets_tell_partial_candidates_apart(self):
        # all of them begin with stage1=1, which each completes in its own way
        joint = JointSearcher(by_budget('greedy'))
        first = [p for p in joint.ask() if p.candidate.arch == {'stage1': 1}]
        assert len(first) == len({p.key for p in first}) == len(BUDGETS)
        assert len({p.candidate for p in first}) == len(BUDGETS)
        costs = [sum(p.candidate.arch_for(0).values()) for p in first]
        assert costs == list(BUDGETS)

    def test_needs_searchers_of_the_same_choices(self):
        with pytest.raises(UserError, match='one or more searchers'):
            JointSearcher({})
        other = GreedySearcher(operation_space([2, 2]))
        with pytest.raises(UserError, match='those of b are not those of a'):
            JointSearcher({'a': GreedySearcher(resnet_stage_space(8)), 'b': other})

    def test_json_form(self):
        searchers = by_budget('greedy')
        joint = JointSearcher(searchers)
        obj = joint.to_json()
        assert obj['kind'] == 'joint'
        assert list(obj['searchers']) == ['8', '9', '16']
        assert obj['searchers']['9'] == {
            **searchers['9'].to_json(),
            'space': resnet_stage_space(9).to_json(),
        }
        assert joint.space.to_json() == resnet_stage_space().to_json()
