"""The statistics of a ranking study recover what was put in."""

import json

import numpy as np
import pytest
from scipy.stats import kendalltau

from mmcr.cost.training_free import multi_scale_entropy, training_free_scores
from mmcr.errors import UserError
from mmcr.models import CRMobileNetV2, CRResNet
from mmcr.report.pages.ranking_page import figure, markdown, write_ranking
from mmcr.report.ranking import Interval, Ranking
from mmcr.space import resnet_stage_space, stage_arch
from mmcr.workflow.contests.study import name_of, spread

NAMES = [f'net{i}' for i in range(12)]


def study(noise, seeds=4, shift=0.0, rng_seed=0):
    """Networks 1 AP apart, with a noise and what each seed does to all of them."""
    rng = np.random.default_rng(rng_seed)
    values = np.arange(12.0)[:, None] + noise * rng.normal(size=(12, seeds))
    values += shift * rng.normal(size=seeds)
    return dict(zip(NAMES, values.tolist()))


def of_order(order):
    return dict(zip(NAMES, map(float, order)))


PREDICTED = dict(
    right=of_order(range(12)),
    wrong=of_order(range(12, 0, -1)),
    same=of_order([1] * 12),
    last_two=of_order([0] * 10 + [1, 1]),
)


def test_predictors_of_networks_without_noise():
    ranking = Ranking(study(0.0), PREDICTED)
    assert [ranking.taus[name].value for name in PREDICTED] == [
        1,
        -1,
        0,
        pytest.approx(20 / (66 * 20) ** 0.5),  # ties in one: tau-b
    ]
    regrets = [ranking.regret(name).value for name in PREDICTED]
    assert regrets == pytest.approx([0, 11, 5.5, 0.5])
    assert ranking.chance().value == pytest.approx(5.5)
    assert ranking.ceiling() == pytest.approx(1)
    assert ranking.reliability() == pytest.approx(1)
    assert ranking.noise_floor().value == pytest.approx(0, abs=1e-9)


def test_the_floor_is_the_noise_that_was_added_whatever_seeds_do_to_all():
    floors = [
        Ranking(study(0.8, shift=5.0, rng_seed=seed), {}).noise_floor()
        for seed in range(200)
    ]
    values = np.array([floor.value for floor in floors])
    assert np.sqrt((values**2).mean()) == pytest.approx(0.8, rel=0.03)
    covered = np.mean([floor.low < 0.8 < floor.high for floor in floors])
    assert 0.9 < covered < 0.99


def test_spread_is_that_of_the_networks_without_the_noise():
    spreads = [
        Ranking(study(3.0, seeds=3, rng_seed=seed), {}).spread() ** 2
        for seed in range(200)
    ]
    true = np.arange(12).var(ddof=1)
    assert np.mean(spreads) == pytest.approx(true, rel=0.05)


def test_networks_that_do_not_differ_are_no_ranking():
    rng = np.random.default_rng(1)
    rankings = [
        Ranking(dict(zip(NAMES, rng.normal(size=(12, 4)).tolist())), {})
        for _ in range(100)
    ]
    assert np.mean([ranking.reliability() for ranking in rankings]) < 0.2
    equal = Ranking(dict.fromkeys(NAMES, [3.0, 3.0]), PREDICTED)
    assert equal.reliability() == equal.ceiling() == 0
    assert equal.taus['right'] == Interval(0)


@pytest.mark.parametrize('noise', (0.5, 2.0))
def test_the_ceiling_is_the_tau_of_a_predictor_that_knows(noise):
    taus, ceilings = [], []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        true = rng.normal(size=300)
        alone = true[:, None] + noise * rng.normal(size=(300, 4))
        ranking = Ranking(dict(enumerate(alone)), {})
        taus.append(kendalltau(true, alone.mean(1)).statistic)
        ceilings.append(ranking.ceiling())
    assert np.mean(ceilings) == pytest.approx(np.mean(taus), abs=0.015)


@pytest.mark.parametrize('seeds', (2, 3))
def test_intervals_of_regrets_hold_what_they_say(seeds):
    """The best is 4 AP ahead of the others, and the noise never hides it."""
    predicted = dict(some=of_order([0] * 6 + [1] + [0] * 5))
    held = []
    for seed in range(300):
        alone = study(0.5, seeds, shift=5.0, rng_seed=seed)
        ranking = Ranking(dict(alone, net11=[v + 3 for v in alone['net11']]), predicted)
        regret, chance = ranking.regret('some'), ranking.chance()
        held.append((regret.low < 8 < regret.high, chance.low < 8.25 < chance.high))
    for share in np.mean(held, 0):
        assert 0.92 < share < 0.98


def test_the_best_measured_has_no_interval_of_a_regret():
    ranking = Ranking(study(0.3), dict(right=PREDICTED['right']))
    assert ranking.regret('right') == Interval(0)
    row = '| 1.00 (1.00 to 1.00) | none: the best measured | net11 |'
    assert row in markdown(ranking)


def test_resamples_without_a_tau_count_for_none():
    few = dict(a=[1, 1.1], b=[2, 2.1], c=[3, 3.1])
    tau = Ranking(few, dict(right=dict(a=1, b=2, c=3))).taus['right']
    assert tau == Interval(1, 1, 1)
    same = Ranking(few, dict(same=dict(a=1, b=1, c=1))).taus['same']
    assert same == Interval(0) and str(same) == '0.00'


def test_networks_are_drawn_and_seeds_are_not():
    """The means say all of the seeds: other values of the same means change nothing."""
    calm = study(0.5)
    noisy = {
        name: np.mean(values) + 9 * (np.array(values) - np.mean(values))
        for name, values in calm.items()
    }
    predicted = dict(odd=of_order([3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8]))
    one, other = (Ranking(alone, predicted).taus['odd'] for alone in (calm, noisy))
    assert one == other


def test_seeds_of_one_value_can_be_drawn():
    values = [0.1, 0.1, 0.1]  # their mean is larger by the last digit
    assert np.mean(values) > max(values)
    alone = dict(study(0.1, seeds=3), net0=values)
    figure(Ranking(alone, dict(same=PREDICTED['same'])))


def test_intervals_hold_the_value_and_grow_with_the_noise():
    calm, noisy = (
        Ranking(study(noise), PREDICTED).taus['right'] for noise in (0.2, 6.0)
    )
    assert calm.low <= calm.value <= calm.high
    assert noisy.high - noisy.low > 2 * (calm.high - calm.low)
    assert Ranking(study(6.0), PREDICTED).taus['right'] == noisy  # seeded


@pytest.mark.parametrize(
    'alone, predicted, words',
    [
        (dict(a=[1, 2], b=[1, 2]), {}, 'three networks'),
        (dict(a=[1], b=[1], c=[2]), {}, 'two or more'),
        (dict(a=[1, 2], b=[1, 2], c=[2]), {}, r'\[1, 2\] seeds'),
        (study(1), dict(half=dict(net0=1)), "half must predict all.*'net11'"),
    ],
)
def test_bad_input_is_named(alone, predicted, words):
    with pytest.raises(UserError, match=words):
        Ranking(alone, predicted)


def test_page_says_the_noise_first_and_lists_the_best_first(tmp_path):
    text = write_ranking(Ranking(study(0.3), PREDICTED), tmp_path)
    assert (tmp_path / 'ranking.md').read_text() == text
    assert text.index('between seeds') < text.index('| right |')
    assert '| last_two |' in text and 'net10 and 1 more' in text
    assert text.index('| net11 |') < text.index('| net0 |')
    record = json.loads((tmp_path / 'ranking.json').read_text())
    assert record['predictors']['right']['tau']['value'] == 1
    assert record['predictors']['right']['regret']['low'] is None
    assert 'all regrets lean high' in text and 'knows the true AP' in text
    assert (tmp_path / 'ranking.png').stat().st_size > 5000


def test_members_are_spread_extremes_first():
    archs = list(resnet_stage_space(16))
    taken = spread(archs, 12)
    assert len(set(taken)) == 12
    for choice in archs[0]:  # the first five have every end of some choice
        values = {arch[choice] for arch in archs}
        assert {arch[choice] for arch in taken} & {min(values), max(values)}
    assert spread(archs, 5) == taken[:5]
    assert name_of(stage_arch((3, 4, 6, 3))) == '3-4-6-3'


def test_scores_without_training():
    net = CRResNet(50, supernet='stage', base_channels=8, stem_channels=8)
    shallow, deep = (stage_arch(blocks) for blocks in ((8, 4, 2, 2), (2, 2, 3, 9)))
    scores = training_free_scores(net, {}, [shallow, deep])
    names = ['parameters', 'blocks of the last stage', 'multi-scale entropy']
    assert list(scores) == names
    for values in scores.values():
        assert values[shallow] < values[deep]
    fixed = CRResNet(50, stage_blocks=(8, 4, 2, 2), base_channels=8, stem_channels=8)
    parameters = sum(p.numel() for p in fixed.parameters())
    assert scores['parameters'][shallow] == parameters


@pytest.mark.parametrize('kind', [CRResNet, CRMobileNetV2])
def test_entropy_is_the_fan_in_of_every_convolution(kind):
    """One more block adds its convolutions' to every output behind it."""
    if kind is CRResNet:
        nets = [CRResNet(18, stage_blocks=(b, 2, 2, 2)) for b in (2, 3)]
        added = 2 * np.log(64 * 9 / 2)
    else:
        nets = [CRMobileNetV2(stage_blocks=(b, 3, 4, 3, 3)) for b in (2, 3)]
        added = np.log(24 / 2) + np.log(9 / 2) + np.log(144 / 2)
    low, high = map(multi_scale_entropy, nets)
    assert high - low == pytest.approx((1 + 1 + 6) * added / 2)
