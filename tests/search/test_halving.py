from random import Random

import pytest
from answers import find, rounds

from mmcr.errors import UserError
from mmcr.search import ExhaustiveSearcher, HalvingSearcher, Trial
from mmcr.space import Choice, SearchSpace, operation_space, resnet_stage_space


class TestHalving:
    SPACE = SearchSpace([Choice('a', (1, 2, 3, 4, 5, 6, 7, 8))])
    # Worked by hand for eta = 2 and two finalists, by the value of `a`. The tie on
    # a quarter of archval goes to 6 and 2, which were proposed before 8.
    ROUNDS = (
        (0.25, {1: 0.1, 2: 0.5, 3: 0.9, 4: 0.2, 5: 0.8, 6: 0.5, 7: 0.3, 8: 0.5}),
        (0.5, {2: 0.7, 3: 0.4, 5: 0.6, 6: 0.1}),
        (1.0, {2: 0.3, 5: 0.31}),
    )

    def test_the_full_sequence_by_hand(self):
        searcher = HalvingSearcher(self.SPACE, eta=2, finalists=2)
        for stop, scores in self.ROUNDS:
            asked = searcher.ask()
            assert [p.candidate.arch['a'] for p in asked] == list(scores)
            assert {p.portion for p in asked} == {(0.0, stop)}
            searcher.tell([Trial(p, scores[p.candidate.arch['a']]) for p in asked])
        assert searcher.ask() == []
        assert searcher.best().proposal.candidate.arch == {'a': 5}
        assert searcher.total == 8 + 4 + 2

    @pytest.mark.parametrize(
        'budget, options, expected',
        [
            (16, {}, [(153, 1 / 16), (39, 1 / 4), (10, 1)]),
            (33, {}, [(374, 1 / 16), (94, 1 / 4), (24, 1)]),
            (16, dict(rungs=1), [(153, 1)]),
            (16, dict(rungs=2, eta=10), [(153, 1 / 10), (16, 1)]),
            # never fewer than the finalists, and no rung that drops none
            (16, dict(finalists=50), [(153, 1 / 16), (50, 1)]),
            (8, {}, [(9, 1 / 16), (8, 1)]),
            (8, dict(finalists=9), [(9, 1)]),
            (8, dict(finalists=1, rungs=4), [(9, 1 / 64), (3, 1 / 16), (1, 1)]),
        ],
    )
    def test_how_many_on_how_much(self, budget, options, expected):
        searcher = HalvingSearcher(resnet_stage_space(budget), **options)
        assert searcher.total == sum(count for count, _ in expected)
        for trials, (count, stop) in zip(rounds(searcher), expected, strict=True):
            assert len(trials) == count
            assert {trial.proposal.portion for trial in trials} == {(0.0, stop)}

    @pytest.mark.parametrize('space', [resnet_stage_space(16), operation_space([2, 4])])
    def test_finds_the_optimum_where_slices_tell_the_truth(self, space):
        def evaluate(proposals):
            for p in proposals:
                arch = p.candidate.arch
                noise = Random(p.key).uniform(-1, 1) * (1 - p.portion[1])
                gap = sum((value - 2) ** 2 for value in arch.values())
                yield Trial(p, noise - gap)

        exhaustive = find(ExhaustiveSearcher(space), evaluate)
        assert find(HalvingSearcher(space), evaluate) == exhaustive

    @pytest.mark.parametrize(
        'name, wrong', [('eta', 1), ('rungs', 0), ('finalists', 0), ('eta', 2.5)]
    )
    def test_options_are_checked(self, name, wrong):
        with pytest.raises(UserError, match=f'{name} must be .* but got {wrong}'):
            HalvingSearcher(self.SPACE, **{name: wrong})
