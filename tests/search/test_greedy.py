from itertools import pairwise
from random import Random

import pytest

from mmcr.errors import UserError
from mmcr.search import Complete, GreedySearcher, Partial, Trial, run_search
from mmcr.space import Arch, Choice, SearchSpace, operation_space, resnet_stage_space


def evaluate(proposals):
    """Any scores: distinct and reproducible."""
    return [Trial(p, Random(p.key).random()) for p in proposals]


class TestGreedy:
    SPACE = SearchSpace([Choice(name, (1, 2)) for name in 'abc'])
    # Worked by hand for k = 2. The tie at 0.6 goes to a=2, b=2, asked first, and
    # both are kept; the best one of all extends the second of them.
    ROUNDS = (
        {(1,): 0.3, (2,): 0.5},
        {(2, 1): 0.4, (2, 2): 0.6, (1, 1): 0.6, (1, 2): 0.1},
        {(2, 2, 1): 0.7, (2, 2, 2): 0.2, (1, 1, 1): 0.7, (1, 1, 2): 0.9},
    )

    def answer(self, proposals):
        table = {values: s for scores in self.ROUNDS for values, s in scores.items()}
        return [Trial(p, table[tuple(p.candidate.arch.values())]) for p in proposals]

    def test_the_full_sequence_by_hand_then_resumed(self):
        expected = [
            [dict(zip('abc', values)) for values in scores] for scores in self.ROUNDS
        ]
        searcher = GreedySearcher(self.SPACE, k=2)
        told = []
        for asked in expected:
            assert [proposal.candidate.arch for proposal in searcher.ask()] == asked
            told.append(self.answer(searcher.ask()))
            searcher.tell(told[-1])
        assert searcher.ask() == []
        assert searcher.best().proposal.candidate == Complete(
            Arch({'a': 1, 'b': 1, 'c': 2})
        )
        assert searcher.total == 2 + 4 + 4

        for stop in range(len(expected)):
            resumed = GreedySearcher(self.SPACE, k=2)
            for trials in told[:stop]:
                resumed.tell(trials)
            assert [p.candidate.arch for p in resumed.ask()] == expected[stop]

    def test_keeps_k(self):
        # 3 at the first block, then 9 (CR-NAS, Sec. 3.2).
        assert GreedySearcher(operation_space([3, 4, 6, 3])).total == 3 + 15 * 9
        # One block decides 2 of k = 3: the next extends both.
        assert GreedySearcher(self.SPACE, k=3).total == 2 + 4 + 6

    def test_finds_the_optimum_of_independent_choices(self):
        space = operation_space([2, 3])
        gain = {
            (c.name, v): Random(f'{c}{v}').random()
            for c in space.choices
            for v in c.values
        }

        def additive(proposals):
            return [
                Trial(p, sum(gain[item] for item in p.candidate.arch.items()))
                for p in proposals
            ]

        best = run_search(GreedySearcher(space, k=1), additive, {}, lambda _: None)
        optimum = max(space, key=lambda arch: sum(gain[item] for item in arch.items()))
        assert best.proposal.candidate.arch == optimum

    def test_under_a_budget_asks_only_what_a_member_completes(self):
        space = resnet_stage_space(16)
        searcher = GreedySearcher(space, k=3)
        trials = []
        best = run_search(searcher, evaluate, {}, trials.append)
        members = [set(arch.items()) for arch in space]
        for trial in trials:
            decided = set(trial.proposal.candidate.arch.items())
            assert any(decided <= member for member in members)
        assert best.proposal.candidate.arch in space
        assert len(trials) <= searcher.total

    def test_candidates_of_a_step_share_their_completions(self):
        searcher = GreedySearcher(operation_space([2, 3]), seed=3)
        searcher.tell(evaluate(searcher.ask()))
        proposals = searcher.ask()
        assert len(proposals) == 9
        per_batch = []
        for batch in range(6):
            rests = {tuple(p.candidate.arch_for(batch).values())[2:] for p in proposals}
            assert len(rests) == 1
            per_batch += rests
        assert any(one != other for one, other in pairwise(per_batch))

    def test_the_seed_changes_the_completions(self):
        space, arch = operation_space([3, 3]), Arch({'stage1.0': 1})
        by_seed = [
            [Partial(arch, space, seed).arch_for(batch) for batch in range(4)]
            for seed in (0, 1, 0)
        ]
        assert by_seed[0] == by_seed[2] != by_seed[1]

    @pytest.mark.parametrize('k', [0, -1, 2.5, True])
    def test_k_is_checked(self, k):
        with pytest.raises(UserError, match=f'k must be .* but got {k}'):
            GreedySearcher(self.SPACE, k=k)
