"""Paired differences: the published contest, and what few seeds can say."""

import pytest

from mmcr.report.paired import Difference, floor, verdict

# benchmarks/results: [7, 5, 2, 2] minus [3, 4, 6, 3] on six paired seeds
CONTEST = 1.99, 1.29, 1.43, 0.38, 1.14, 1.09


def test_six_seeds_that_agree():
    difference = Difference(CONTEST)
    assert str(difference) == '+1.22 AP (+0.67 to +1.77, p = 0.031, 6 seeds)'
    assert difference.kind == 'ahead' and difference.p == difference.least_p
    said = verdict('found', 'the baseline', difference)
    assert said == f'found is ahead of the baseline: {difference}.'


def test_the_sign_flip_test_is_exact():
    # 2 of 8 sign patterns have a mean as far from 0, and no rounding parts them
    assert Difference([0.1, 0.2, 0.3]).p == 0.25 == Difference([0.1, 0.2, 0.3]).least_p
    # as far: all but the least one's sign, and their mirror images
    assert Difference([1.0, 2.0, -0.5]).p == pytest.approx(0.5)
    assert Difference([0.0, 0.0]).p == 1.0


def test_three_seeds_say_that_they_are_few():
    said = verdict('found', 'the baseline', Difference([1.0, 1.1, 1.2]))
    assert said.startswith('found is ahead of the baseline: +1.10 AP')
    assert 'p is 0.25 at the least; that of six is 0.031' in said
    behind = verdict('found', 'the baseline', Difference([-1.0, -1.1, -1.2]))
    assert 'found is behind the baseline: -1.10 AP' in behind
    assert 'Keep the baseline.' in behind


def test_no_difference_says_what_would_have_been_seen():
    difference = Difference([2.0, -1.5, 0.5, 0.2])
    said = verdict('found', 'the baseline', difference)
    assert difference.kind == 'undecided' and said.endswith('Keep the baseline.')
    # t(0.975) + t(0.8) of 3 degrees of freedom, times 1.435 / 2
    assert difference.visible == pytest.approx((3.182 + 0.978) * 1.435 / 2, abs=0.01)
    assert f'seen one of {difference.visible:.2f} AP' in said


def test_one_seed_decides_nothing():
    difference = Difference([3.0])
    assert difference.kind == 'undecided' and difference.visible is None
    assert 'One seed cannot tell' in verdict('found', 'the baseline', difference)


def test_the_floor_pools_networks_with_the_same_seeds():
    both = dict(a=[1.0, 2.0], b=[3.0, 4.0], c=[0.0, 2.0])
    # residuals of +-1/6, +-1/6, -+1/3: 1/3 in all, over 2 degrees of freedom
    assert floor(both) == pytest.approx((2 * (1 / 3) / 2) ** 0.5)
    # what a seed does to all alike does not count
    assert floor({n: [x, y + 5] for n, (x, y) in both.items()}) == pytest.approx(
        floor(both)
    )
    assert floor(dict(both, d=[7.0, None])) == floor(both)
    assert floor(dict(a=[1.0], b=[2.0])) is None
    assert floor(dict(a=[1.0, 2.0], b=[2.0, None])) is None
