"""Streams of paths for a supernet's training."""

import random
from collections import Counter
from fractions import Fraction
from math import inf
from pathlib import Path

import pytest
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from tiny import OPERATION, train_cfg

from mmcr.cost.units import count
from mmcr.errors import UserError
from mmcr.registry import TASK_UTILS
from mmcr.space import (
    Arch,
    Budget,
    Choice,
    SearchSpace,
    operation_space,
    resnet_stage_space,
    stage_arch,
)
from mmcr.training import ArchSamplingHook
from mmcr.training.samplers import (
    GRID,
    CostUniformSampler,
    SandwichSampler,
    StrictlyFairSampler,
    UniformSampler,
    cost_bins,
)

UNEVEN = SearchSpace(
    [Choice('a', (1, 2, 3)), Choice('b', (4, 5)), Choice('c', range(7))],
    lambda name, value: value,
)
# costs 0 1 4 5 6 9, and a tenth of that
SMALL, TENTHS = (
    SearchSpace([Choice('a', (0, 1, 4)), Choice('b', (0, 5))], cost)
    for cost in (lambda name, value: value, lambda name, value: value / 10)
)
SAMPLERS = [
    UniformSampler(),
    StrictlyFairSampler(),
    CostUniformSampler(bins=5),
    SandwichSampler(),
]


def draws(sampler, space, number, seed=0):
    return [sampler.draw(space, seed, i) for i in range(number)]


@pytest.mark.parametrize('sampler', SAMPLERS, ids=repr)
def test_a_draw_is_a_function_of_seed_and_iteration(sampler):
    stream = draws(sampler, UNEVEN, 40)
    assert all(arch in UNEVEN for arch in stream)
    random.seed(1)
    again = type(sampler)(**{k: v for k, v in vars(sampler).items() if k == 'bins'})
    backwards = [again.draw(UNEVEN, 0, i) for i in reversed(range(40))]
    assert backwards[::-1] == stream
    assert draws(sampler, UNEVEN, 40, seed=1) != stream


def test_uniform_draws_are_those_of_the_first_supernets():
    """Of a supernet trained before there were other samplers."""
    space = resnet_stage_space()
    assert draws(UniformSampler(), space, 20, seed=3) == [
        space.sample(random.Random(f'3/{i}')) for i in range(20)
    ]
    assert UniformSampler().draw(space, 0, 0) == stage_arch((6, 8, 14, 11))


@pytest.mark.parametrize('space', [UNEVEN, operation_space((2, 3))])
def test_a_fair_round_has_every_value_once(space):
    stream = draws(StrictlyFairSampler(), space, 42)
    for choice in space.choices:
        values = [arch[choice.name] for arch in stream]
        size = len(choice.values)
        rounds = [tuple(values[i : i + size]) for i in range(0, len(values), size)]
        assert {frozenset(turn) for turn in rounds} == {frozenset(choice.values)}
        assert len(set(rounds)) > 1


def test_choices_are_shuffled_independently():
    stream = draws(StrictlyFairSampler(), operation_space((1, 1)), 3 * 300)
    pairs = Counter((arch['stage1.0'], arch['stage2.0']) for arch in stream)
    assert len(pairs) == 9
    assert all(70 <= number <= 130 for number in pairs.values())


def test_a_round_of_a_sandwich_has_both_ends():
    prices = dict(a={1: 5, 2: 9, 3: 0}, b={4: 1, 5: 1})
    space = SearchSpace(UNEVEN.choices[:2], lambda name, value: prices[name][value])
    stream = draws(SandwichSampler(paths=5), space, 200)
    assert {*stream[0::5]} == {Arch(dict(a=2, b=4))} and {*stream[1::5]} == {
        Arch(dict(a=3, b=4))
    }
    rest = [arch for i, arch in enumerate(stream) if i % 5 > 1]
    assert {*rest} == {*space}


@pytest.mark.parametrize(
    'space, count, ends, costs',
    [
        (SMALL, 3, {}, [[0, 1], [5, 4], [6, 9]]),
        # nothing costs 2, 3, 7 or 8
        (SMALL, 9, {}, [[0], [1], [4], [5], [6], [9]]),
        (TENTHS, 2, dict(low=0.1, high=0.6), [[0.1], [0.5, 0.6, 0.4]]),
        (TENTHS, 2, dict(low=0.45), [[0.5, 0.6], [0.9]]),
        (TENTHS, 2, dict(high=0.2), [[0], [0.1]]),
    ],
)
def test_bins_by_hand(space, count, ends, costs):
    parts = cost_bins(space, count, **ends)
    assert [[space.cost_of(arch) for arch in part] for part in parts] == costs


@pytest.mark.parametrize('bins', (3, 10, 54))
def test_bins_are_a_partition_in_order_of_cost(bins):
    space = resnet_stage_space()
    parts = cost_bins(space, bins)
    assert sum(part.size for part in parts) == space.size
    width = Fraction(60 - 6, bins)
    last = -inf
    for part in parts:
        costs = {space.cost_of(part.sample(random.Random(i))) for i in range(30)}
        assert last < min(costs) and max(costs) - min(costs) <= width
        last = max(costs)


def test_every_bin_is_as_likely_as_another():
    space = resnet_stage_space()
    costs = [space.cost_of(a) for a in draws(CostUniformSampler(bins=6), space, 1200)]
    hits = Counter(min((cost - 6) // 9, 5) for cost in costs)
    assert set(hits) == set(range(6)) and all(150 < n < 250 for n in hits.values())
    uniform = [space.cost_of(a) for a in draws(UniformSampler(), space, 1200)]
    assert sum(cost >= 51 for cost in uniform) < 40


def test_a_space_that_nobody_can_enumerate():
    """As many costs as architectures, 3**40 of them, are rounded to a grid."""
    rng = random.Random(0)
    prices = {}
    space = SearchSpace(
        [Choice(f'c{i}', (1, 2, 3)) for i in range(40)],
        lambda name, value: prices.setdefault((name, value), rng.random() * value),
    )
    parts = cost_bins(space, 4)
    assert sum(part.size for part in parts) == 3**40
    low, high = (
        sum(end(space.cost(c.name, v) for v in c.values) for c in space.choices)
        for end in (min, max)
    )
    a_range = CostUniformSampler(bins=2, low=40, high=40.5)
    slack = (high - low) / GRID * 40 / 2  # each of 40 costs is off by half a step
    for cost in map(space.cost_of, draws(a_range, space, 40)):
        assert 40 - slack <= cost <= 40.5 + slack
    for i, part in enumerate(parts):
        start, stop = (low + (high - low) * j / 4 for j in (i, i + 1))
        for seed in range(5):
            cost = space.cost_of(part.sample(random.Random(seed)))
            assert start - 2 * slack <= cost <= stop + 2 * slack


@pytest.mark.parametrize(
    'sampler, space, words',
    [
        (CostUniformSampler(), operation_space((1, 1)), 'have no cost'),
        (
            CostUniformSampler(),
            SearchSpace([Choice('a', (1, 2))], lambda name, value: 1),
            'cost the same',
        ),
        (CostUniformSampler(2, 2, 3), TENTHS, 'from 2 to 3, but .* from 0 to 0.9'),
        (CostUniformSampler(2, 1), TENTHS, 'from 1 to None, but'),
        (CostUniformSampler(), UNEVEN.under(Budget(7, 9)), 'between 7 and 9'),
        (StrictlyFairSampler(), UNEVEN.under(Budget(7, 9)), 'between 7 and 9'),
        (SandwichSampler(), UNEVEN.under(Budget(7, 9)), 'between 7 and 9'),
        (SandwichSampler(), operation_space((1, 1)), 'have no cost'),
    ],
)
def test_streams_that_cannot_be(sampler, space, words):
    with pytest.raises(UserError, match=words):
        sampler.draw(space, 0, 0)


@pytest.mark.parametrize('bins', (0, -1, 2.5, True))
def test_bins_must_be_a_positive_integer(bins):
    with pytest.raises(UserError, match=f'bins must be .*got {bins}'):
        CostUniformSampler(bins=bins)


def test_a_range_must_have_a_width():
    for low, high in ((3, 3), (4, 3)):
        with pytest.raises(UserError, match=f'low < high .* .low={low}, high={high}'):
            CostUniformSampler(low=low, high=high)
    with pytest.raises(UserError, match="finite numbers, but got 'a'"):
        CostUniformSampler(low='a')


@pytest.mark.parametrize('sampler', SAMPLERS, ids=repr)
def test_configs_name_them(sampler):
    init_default_scope('mmdet')
    kind = type(sampler).__name__
    assert TASK_UTILS.get(kind) is type(sampler)
    hook = ArchSamplingHook(seed=5, sampler=dict(type=f'mmcr.{kind}'))
    stream = [hook.draw(UNEVEN, i) for i in range(30)]
    assert stream == draws(type(sampler)(), UNEVEN, 30, seed=5)
    assert ArchSamplingHook().sampler == UniformSampler()  # the papers'


def test_costs_are_blocks_or_macs():
    with pytest.raises(UserError, match="blocks, macs, but got 'flops'"):
        ArchSamplingHook(cost='flops')
    with pytest.raises(UserError, match="needs cost='macs', but got cost='blocks'"):
        ArchSamplingHook(shape=(224, 224))
    with pytest.raises(UserError, match='height and a width .* 224'):
        ArchSamplingHook(cost='macs', shape=224)


@pytest.mark.usefixtures('quiet_mmdet')
@pytest.mark.parametrize(
    'sampler, words',
    [
        ('mmcr.StrictlyFairSampler', "got 'mmcr.StrictlyFairSampler'"),
        (dict(bins=3), 'type'),
        (dict(type='mmcr.Nope'), 'mmcr.Nope.*not in'),
        (dict(type='mmcr.UniformSampler', bins=3), "argument 'bins'"),
        (dict(type='mmcr.SandwichSampler', paths=2), 'paths must be .* at least 3'),
        (
            dict(type='mmcr.CostUniformSampler', bins=0),
            'bins must be an integer of at least 1',
        ),
    ],
)
def test_samplers_that_are_none(sampler, words):
    with pytest.raises(UserError, match=words):
        ArchSamplingHook(sampler=sampler)


@pytest.mark.usefixtures('quiet_mmdet')
def test_training_by_macs(shapes, tmp_path):
    cfg = train_cfg(shapes, tmp_path, iterations=3)
    sampler = dict(type='mmcr.CostUniformSampler', bins=4)
    cfg.custom_hooks = [
        dict(type='mmcr.ArchSamplingHook', seed=2, sampler=sampler, cost='macs')
    ]
    runner = Runner.from_cfg(cfg)
    runner.train()
    backbone = runner.model.backbone
    space = SearchSpace(backbone.space.choices, count(backbone, {}, 'macs'))
    assert backbone.arch == CostUniformSampler(bins=4).draw(space, 2, 2)
    # they are counted for samplers alone that look at them
    for kind in ('mmcr.UniformSampler', 'mmcr.StrictlyFairSampler'):
        hook = ArchSamplingHook(sampler=dict(type=kind), cost='macs')
        assert hook._costed(backbone) is backbone.space


@pytest.mark.usefixtures('quiet_mmdet')
def test_a_stream_that_cannot_be_ends_before_the_first_step(shapes, tmp_path):
    cfg = train_cfg(shapes, tmp_path, OPERATION)
    cfg.custom_hooks[0].sampler = dict(type='mmcr.CostUniformSampler')
    with pytest.raises(UserError, match='have no cost'):
        Runner.from_cfg(cfg).train()


@pytest.mark.usefixtures('quiet_mmdet')
def test_a_resumed_run_says_that_its_stream_is_another(shapes, tmp_path):
    Runner.from_cfg(train_cfg(shapes, tmp_path, iterations=1)).train()
    cfg = train_cfg(shapes, tmp_path / 'fair', iterations=3)
    cfg.custom_hooks[0].sampler = dict(type='mmcr.StrictlyFairSampler')
    cfg.update(load_from=f'{tmp_path}/iter_1.pth', resume=True, log_level='WARNING')
    runner = Runner.from_cfg(cfg)
    runner.train()
    (log,) = Path(runner.work_dir).glob('*/*.log')
    assert 'with UniformSampler() by blocks, the config says Strict' in log.read_text()
    space = runner.model.backbone.space
    assert runner.model.backbone.arch == StrictlyFairSampler().draw(space, 7, 2)
