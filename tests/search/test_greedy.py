from itertools import pairwise

import pytest
from answers import additive, evaluate, find, rounds

from mmcr.errors import UserError
from mmcr.search import Complete, GreedySearcher, Partial, Trial
from mmcr.space import Arch, Choice, SearchSpace, operation_space, resnet_stage_space


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

    def test_the_full_sequence_by_hand(self):
        searcher = GreedySearcher(self.SPACE, k=2)
        assert [
            [tuple(trial.proposal.candidate.arch.values()) for trial in trials]
            for trials in rounds(searcher, self.answer)
        ] == list(map(list, self.ROUNDS))
        best = searcher.best().proposal.candidate
        assert best == Complete(Arch({'a': 1, 'b': 1, 'c': 2}))
        assert searcher.total == 2 + 4 + 4

    def test_keeps_k(self):
        # 3 at the first block, then 9 (CR-NAS, Sec. 3.2).
        assert GreedySearcher(operation_space([3, 4, 6, 3])).total == 3 + 15 * 9
        # One block decides 2 of k = 3: the next extends both.
        assert GreedySearcher(self.SPACE, k=3).total == 2 + 4 + 6

    def test_finds_the_optimum_of_independent_choices(self):
        space = operation_space([2, 3])
        score = additive(space)

        def told(proposals):
            return [Trial(p, score(p.candidate.arch)) for p in proposals]

        best = find(GreedySearcher(space, k=1), told)
        assert best.proposal.candidate.arch == max(space, key=score)

    def test_under_a_budget_asks_only_what_a_member_completes(self):
        space = resnet_stage_space(16)
        searcher = GreedySearcher(space, k=3)
        trials = sum(rounds(searcher), [])
        members = [set(arch.items()) for arch in space]
        for trial in trials:
            decided = set(trial.proposal.candidate.arch.items())
            assert any(decided <= member for member in members)
        assert len(trials) <= searcher.total

    def test_candidates_of_a_step_share_their_completions(self):
        searcher = GreedySearcher(operation_space([2, 3]), seed=3)
        searcher.tell(list(evaluate(searcher.ask())))
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
