from random import Random

import pytest

from mmcr.errors import UserError
from mmcr.search import (
    ExhaustiveSearcher,
    GreedySearcher,
    HalvingSearcher,
    JointSearcher,
    RacingGreedySearcher,
    Trial,
    run_search,
)
from mmcr.space import operation_space, resnet_stage_space


def evaluate(proposals):
    for p in proposals:
        yield Trial(p, Random(p.key).random())


def record(_):
    pass


KINDS = {
    'exhaustive': ExhaustiveSearcher,
    'halving': HalvingSearcher,
    'greedy': GreedySearcher,
    'racing': RacingGreedySearcher,
}
BUDGETS = (8, 9, 16)


def by_budget(kind):
    return {str(n): KINDS[kind](resnet_stage_space(n)) for n in BUDGETS}


class TestJoint:
    @pytest.mark.parametrize('kind', KINDS)
    def test_each_search_finds_what_it_finds_alone(self, kind):
        alone, recorded = {}, []
        for name, searcher in by_budget(kind).items():
            alone[name] = run_search(searcher, evaluate, {}, recorded.append)
        together = []
        joint = JointSearcher(by_budget(kind))
        best = run_search(joint, evaluate, {}, together.append)
        assert joint.bests() == alone
        assert best == max(alone.values(), key=lambda trial: trial.score)
        assert {t.proposal.key for t in together} == {t.proposal.key for t in recorded}

    def test_a_round_is_the_union_of_rounds(self):
        searchers = by_budget('halving')
        joint = JointSearcher(searchers)
        # 9, 16 and 153 members on a sixteenth, then 8 on all while 153 go on
        for expected in ({1 / 16: 9 + 16 + 153}, {1: 8 + 8, 1 / 4: 39}, {1: 10}):
            asked = joint.ask()
            counts = {}
            for proposal in asked:
                stop = proposal.portion[1]
                counts[stop] = counts.get(stop, 0) + 1
            assert counts == expected
            joint.tell(list(evaluate(asked)))
        assert joint.ask() == []

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
        alone = {
            name: run_search(searcher, evaluate, {}, record)
            for name, searcher in searchers().items()
        }
        assert joint.bests() == alone

    def test_budgets_tell_partial_candidates_apart(self):
        # all of them begin with stage1=1, which each completes in its own way
        joint = JointSearcher(by_budget('greedy'))
        first = [p for p in joint.ask() if p.candidate.arch == {'stage1': 1}]
        assert len(first) == len({p.key for p in first}) == len(BUDGETS)
        assert len({p.candidate for p in first}) == len(BUDGETS)
        costs = [sum(p.candidate.arch_for(0).values()) for p in first]
        assert costs == list(BUDGETS)

    def test_no_bests_before_all_have_one(self):
        joint = JointSearcher(by_budget('halving'))
        joint.tell(list(evaluate(joint.ask())))
        joint.tell(list(evaluate(joint.ask())))
        assert joint.best().proposal.candidate.arch in resnet_stage_space(8) or (
            joint.best().proposal.candidate.arch in resnet_stage_space(9)
        )
        with pytest.raises(UserError, match='on all of archval yet'):
            joint.bests()

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
