from itertools import product
from random import Random

import pytest
from answers import additive, find, rounds

from mmcr.errors import UserError
from mmcr.search import (
    Complete,
    GreedySearcher,
    RacingGreedySearcher,
    Trial,
    sign_flip_p_value,
)
from mmcr.space import Choice, SearchSpace, operation_space


class TestSignFlip:
    @pytest.mark.parametrize(
        'differences, p',
        [
            ([0.25] * 5, 1 / 32),
            ([-0.25] * 5, 1),
            ([0.0] * 6, 1),
            ([1e-9, 2e-9, 3e-9], 1 / 8),
            # the sums of (3, 2, 1) from 6 down: 6, 4, 2, 0, 0, ...
            ([3, 2, -1], 2 / 8),
            ([3, -2, 1], 3 / 8),
            ([-3, 2, 1], 5 / 8),
            # a difference of nothing counts for neither
            ([0.1, 0.0, 0.1], 2 / 8),
            # equal sums in spite of rounding: 0.1 + 0.2 != 0.3
            ([0.1, 0.2, -0.3], 5 / 8),
        ],
    )
    def test_by_hand(self, differences, p):
        assert sign_flip_p_value(differences) == p

    @pytest.mark.parametrize('count', range(1, 10))
    def test_equals_the_count_of_all_patterns(self, count):
        rng = Random(count)
        for _ in range(20):
            differences = [rng.randrange(-4, 6) for _ in range(count)]
            flipped = [
                sum(sign * d for sign, d in zip(signs, differences))
                for signs in product((1, -1), repeat=count)
            ]
            reaching = sum(total >= sum(differences) for total in flipped)
            assert sign_flip_p_value(differences) == reaching / 2**count

    @pytest.mark.parametrize('level', [0.05, 0.2])
    def test_equal_candidates_are_told_apart_at_the_level_at_most(self, level):
        rng = Random(1)
        for _ in range(10):
            sizes = [rng.random() for _ in range(7)]
            found = [
                sign_flip_p_value([sign * size for sign, size in zip(signs, sizes)])
                for signs in product((1, -1), repeat=7)
            ]
            assert 0 < sum(p <= level for p in found) / len(found) <= level

    def test_many_slices_are_exact_too(self):
        assert sign_flip_p_value([0.1] * 24) == 2**-24


def asked_of(searcher, score):
    """By round, on which slices each was asked; answers by ``score(values, slice)``."""
    asked = []

    def evaluate(proposals):
        asked.append({})
        for proposal in proposals:
            values = tuple(proposal.candidate.arch.values())
            start = proposal.portion[0]
            number = None if proposal.on_all else round(start * searcher.slices)
            asked[-1].setdefault(values, []).append(number)
            yield Trial(proposal, score(values, number))

    rounds(searcher, evaluate)
    return asked


class TestRace:
    SPACE = SearchSpace([Choice('a', (1, 2, 3, 4)), Choice('b', (1, 2))])

    def searcher(self, **options):
        # 2 ** -2 <= 0.25: two slices for all, and a drop where both are lost
        return RacingGreedySearcher(
            self.SPACE, **{**dict(k=2, slices=4, level=0.25), **options}
        )

    def test_the_full_sequence_by_hand(self):
        table = {
            # 4 loses both slices to 2, the second best, and is dropped. 1 is behind
            # 2, but with p = 2/4 and then 3/8, and stays to the last slice.
            (1,): [0.5, 0.8, 0.5, 0.2],
            (2,): [0.8, 0.6, 0.6, 0.6],
            (3,): [0.9, 0.9, 0.9, 0.9],
            (4,): [0.1, 0.1],
            # (2, 1) passes (2, 2) in the third slice, which then is behind, never
            # clearly: the slices are used up, and the means decide.
            (3, 1): [0.9, 0.9, 0.9, 0.9],
            (3, 2): [0.1, 0.1],
            (2, 1): [0.7, 0.5, 0.8, 0.7],
            (2, 2): [0.6, 0.7, 0.5, 0.8],
        }
        final = {(3, 1): 0.4, (2, 1): 0.45}
        sequence = [
            {values: [0, 1] for values in ((1,), (2,), (3,), (4,))},
            {(3,): [2], (2,): [2], (1,): [2]},
            {(3,): [3], (2,): [3], (1,): [3]},
            {values: [0, 1] for values in ((3, 1), (3, 2), (2, 1), (2, 2))},
            {(3, 1): [2], (2, 2): [2], (2, 1): [2]},
            {(3, 1): [3], (2, 1): [3], (2, 2): [3]},
            {(3, 1): [None], (2, 1): [None]},
        ]

        def score(values, number):
            return final[values] if number is None else table[values][number]

        searcher = self.searcher()
        found = asked_of(searcher, score)
        assert list(map(list, found)) == list(map(list, sequence))
        assert found == sequence
        best = searcher.best()
        assert best.proposal.candidate == Complete({'a': 2, 'b': 1})
        assert (best.score, best.proposal.portion) == (0.45, (0, 1))

    def test_a_race_is_over_when_k_are_left(self):
        searcher = self.searcher()
        found = asked_of(searcher, lambda values, number: 10 * values[0] + values[-1])
        # each step drops two of four at the first look
        assert [sum(map(len, asked.values())) for asked in found] == [8, 8, 2]
        assert searcher.total == 4 * 4 + 4 * 4 + 2

    def test_equals_are_not_dropped_and_the_first_are_kept(self):
        found = asked_of(self.searcher(), lambda values, number: 0.5)
        counts = [sum(map(len, asked.values())) for asked in found]
        assert counts == [8, 4, 4, 8, 4, 4, 2]
        assert list(found[-1]) == [(1, 1), (1, 2)]

    def test_no_more_than_k_need_no_race(self):
        searcher = self.searcher(k=4)
        assert {len(p.candidate.arch) for p in searcher.ask()} == {2}
        assert searcher.total == 8 * 4 + 4

    def test_the_slices_are_all_of_archval_and_do_not_overlap(self):
        searcher = RacingGreedySearcher(operation_space([2]), k=1, slices=7)
        trials = sum(rounds(searcher), [])
        slices = sorted({trial.proposal.portion for trial in trials} - {(0, 1)})
        starts, stops = zip(*slices)
        assert starts == (0, *stops[:-1]) and stops[-1] == 1

    def test_finds_what_greedy_finds_for_less(self):
        """Where candidates differ by more than their slices scatter."""
        space = operation_space([2, 3])
        gain = additive(space)
        spent = []

        def evaluate(proposals):
            for p in proposals:
                start, stop = p.portion
                spent.append(stop - start)
                scores = []
                for i in range(round(start * 10), round(stop * 10)):
                    # how hard the images are counts for all; a little is its own
                    own = 0.02 * Random(f'{p.candidate.arch}{i}').random()
                    scores.append(gain(p.candidate.arch) + Random(i).random() + own)
                yield Trial(p, sum(scores) / len(scores))

        greedy = find(GreedySearcher(space), evaluate)
        cost = sum(spent)
        spent.clear()
        best = find(RacingGreedySearcher(space), evaluate)
        assert best.proposal == greedy.proposal
        assert sum(spent) < 0.65 * cost


@pytest.mark.parametrize(
    'options, said',
    [
        (dict(k=0), 'k must be an integer'),
        (dict(slices=2.5), 'slices must be an integer'),
        (dict(slices=0), 'slices must be an integer of at least 1'),
        (dict(slices=4), r'slices must be from 5, .*level=0.05, to 24, but got 4'),
        (dict(slices=25), 'to 24, but got 25'),
        (dict(level=0.001, slices=9), 'slices must be from 10, .*but got 9'),
        (dict(level=0), '0 < level <= 0.5 must hold'),
        (dict(level=0.6), '0 < level <= 0.5 must hold, but got level=0.6'),
        (dict(level='5%'), '0 < level <= 0.5 must hold'),
    ],
)
def test_options_are_checked(options, said):
    with pytest.raises(UserError, match=said):
        RacingGreedySearcher(operation_space([2]), **options)
