"""DetNAS's space by arithmetic: the authors' tables and the published networks."""

import random

import pytest
from published import BLOCK_MACS

from mmcr.errors import UserError
from mmcr.space import (
    DETNAS_NETS,
    DETNAS_PUBLISHED,
    Arch,
    ArchError,
    DetNASSize,
    block_arch,
    blocks_of,
    detnas_macs,
    detnas_params,
    detnas_size,
    detnas_space,
)
from mmcr.space.detnas import nested_blocks
from mmcr.training.samplers import CostUniformSampler

SMALL = DetNASSize((1, 2, 1, 1), 4, (8, 16, 32, 64))


def with_classifier(size, params=False):
    """What the last 1x1 conv, its norm and the classifier of 1,000 classes add."""
    before, last = size.stage_channels[-1], size.last_channels
    if params:  # without the bias of the conv
        return before * last + 2 * last + last * 1000 + 1000
    return before * last * 7 * 7 + last * 1000


@pytest.mark.parametrize('choice', BLOCK_MACS)
def test_blocks_cost_what_the_authors_table_says(choice):
    costs = detnas_macs(DETNAS_NETS['300M']).costs
    assert tuple(costs[choice].values()) == BLOCK_MACS[choice]
    # all blocks of a stage but the first are alike
    stage, block = choice.split('.')
    alike = [
        n for n in costs if n.startswith(stage) and (n[-1] == '0') is (block == '0')
    ]
    assert all(costs[name] == costs[choice] for name in alike)
    assert len(costs) == 20


@pytest.mark.parametrize('name', DETNAS_PUBLISHED)
def test_published_networks_cost_what_is_published(name):
    found = DETNAS_PUBLISHED[name]
    size, arch = detnas_size(found.net), block_arch(found.blocks)
    macs = detnas_macs(size).total(arch)
    assert macs == found.backbone_macs == detnas_space(size).cost_of(arch)
    assert macs + with_classifier(size) == found.macs
    params = detnas_params(size).total(arch) - size.stem_channels  # its bias
    assert round(params / 1e6, 3) == found.backbone_params
    assert round((params + with_classifier(size, True)) / 1e6, 3) == found.params


def test_rows_as_they_are_printed():
    blocks = {
        name: ' / '.join(' '.join(map(str, stage)) for stage in found.blocks)
        for name, found in DETNAS_PUBLISHED.items()
    }
    large = (
        '0 0 3 1 2 1 0 2 / 0 3 1 2 3 3 2 0 / '
        '2 1 1 3 2 0 2 2 2 1 3 1 0 3 3 3 / 1 3 3 3 3 3 3 3'
    )
    assert blocks == {
        'coco-fpn_300M': '2 1 2 0 / 2 1 1 2 / 3 3 1 3 0 0 3 1 / 3 1 3 2',
        'coco-retinanet_300M': '2 3 1 1 / 3 2 1 3 / 3 1 1 1 3 3 2 0 / 3 3 3 3',
        'voc-fpn_300M': '2 1 0 3 / 1 3 0 3 / 2 0 1 1 3 3 3 3 / 3 3 3 1',
        'voc-retinanet_300M': '1 3 0 0 / 2 3 3 3 / 2 3 3 3 3 2 2 0 / 2 3 1 1',
        'coco-fpn_1.3G': large,
        'coco-fpn_3.8G': large,
    }
    assert {
        n: (f.top1_error, f.ap, f.ap_pytorch) for n, f in DETNAS_PUBLISHED.items()
    } == {
        'coco-fpn_300M': (26.2, 36.4, 36.6),
        'coco-retinanet_300M': (26.0, 33.3, 34.1),
        'voc-fpn_300M': (25.9, 81.5, None),
        'voc-retinanet_300M': (25.4, 80.1, None),
        'coco-fpn_1.3G': (22.8, 40.0, 40.3),
        'coco-fpn_3.8G': (21.6, 42.0, None),
    }


def test_the_limit_of_the_search_and_the_networks_of_voc():
    within = {n: f.backbone_macs <= 300e6 for n, f in DETNAS_PUBLISHED.items()}
    assert [n for n in within if '300M' in n and not within[n]] == [
        'voc-fpn_300M',
        'voc-retinanet_300M',
    ]


def test_the_space_of_300m():
    space = detnas_space(DETNAS_NETS['300M'])
    assert space.size == 4**20
    names = [choice.name for choice in space.choices]
    assert names[:5] == ['stage1.0', 'stage1.1', 'stage1.2', 'stage1.3', 'stage2.0']
    assert names[-1] == 'stage4.3'
    rows = detnas_macs(DETNAS_NETS['300M'])
    ends = [
        rows.rest + sum(end(row.values()) for row in rows.costs.values())
        for end in (min, max)
    ]
    assert [round(end / 1e6, 2) for end in ends] == [237.22, 365.47]
    rng = random.Random(0)
    legal = [space.cost_of(space.sample(rng)) <= 300e6 for _ in range(1000)]
    assert 0.66 < sum(legal) / 1000 < 0.72


@pytest.mark.parametrize('net', ['1.3G', '3.8G'])
def test_spaces_that_nobody_can_enumerate(net):
    space = detnas_space(DETNAS_NETS[net])
    assert space.size == 4**40
    arch = block_arch(DETNAS_PUBLISHED[f'coco-fpn_{net}'].blocks)
    assert arch in space
    assert space.sample(random.Random(0)) in space


@pytest.mark.parametrize('shape', [(65, 40), (61, 130)])
def test_shapes_that_no_stride_divides(shape):
    """Sizes are rounded up at every halving."""
    macs = detnas_macs(SMALL, shape)
    height, width = shape
    stem = [-(-height // 2), -(-width // 2)]
    assert macs.rest == 27 * 4 * stem[0] * stem[1]
    at = [-(-side // 2) for side in stem]
    # stage1.0 kind 0: 1x1 4->4 before the stride, then 3x3 and 1x1 on both ways
    assert macs('stage1.0', 0) - macs.rest == (
        stem[0] * stem[1] * 16 + at[0] * at[1] * 2 * (9 * 4 + 16)
    )


def test_architectures_and_nested_kinds():
    blocks = ((0,), (1, 2), (3,), (0,))
    arch = block_arch(blocks)
    assert arch == Arch(
        {'stage1.0': 0, 'stage2.0': 1, 'stage2.1': 2, 'stage3.0': 3, 'stage4.0': 0}
    )
    assert blocks_of(arch) == blocks
    assert arch in detnas_space(SMALL)
    assert nested_blocks([0, 1, 2, 3, 0], SMALL.stage_blocks) == blocks
    assert nested_blocks([[0], [1, 2], [3], [0]], SMALL.stage_blocks) == blocks


@pytest.mark.parametrize(
    'blocks',
    [
        None,
        3,
        '01230',
        [],
        [0, 1, 2, 3],
        [0, 1, 2, 3, 0, 0],
        [[0, 1], [2], [3], [0]],
        [[0], [1, 2], [3]],
        [[0], 1, 2, 3, 0],
        [0, 1, 2, 3, [0]],
    ],
)
def test_blocks_for_another_depth(blocks):
    with pytest.raises(ArchError):
        nested_blocks(blocks, SMALL.stage_blocks)


@pytest.mark.parametrize('call', [block_arch, lambda b: nested_blocks(b, (1, 1, 1, 1))])
@pytest.mark.parametrize('kind', [4, -1, 1.5, True, 'a'])
def test_kinds_that_are_none(call, kind):
    with pytest.raises(ArchError, match='kind of a block must be'):
        call([[0], [kind], [1], [2]])
    with pytest.raises(ArchError, match='kind of a block must be 0, 1, 2 or 3'):
        blocks_of(Arch({'stage1.0': 4}))


@pytest.mark.parametrize(
    'changes, words',
    [
        (dict(stage_blocks=(1, 2, 3)), r'stage_blocks must hold four .* \(1, 2, 3\)'),
        (
            dict(stage_blocks=(1, 2, 0, 1)),
            'stage_blocks must be an integer of at least 1.* 0',
        ),
        (dict(stage_blocks=4), 'stage_blocks must hold four numbers, but got 4'),
        (dict(stage_channels=(64, 160, 320, 641)), 'must be even'),
        (dict(stage_channels=(64, 64, 320, 640)), 'wider than what is before'),
        (dict(stem_channels=64), 'wider than what is before'),
        (dict(stem_channels=1.5), 'stem_channels must be an integer .* 1.5'),
        (dict(last_channels=0), 'last_channels must be an integer .* 0'),
    ],
)
def test_sizes_that_cannot_be(changes, words):
    with pytest.raises(UserError, match=words):
        detnas_size('300M', **changes)


def test_sizes_by_name_and_by_change():
    with pytest.raises(UserError, match="300M, 1.3G, 3.8G, but got '600M'"):
        detnas_size('600M')
    assert detnas_size('3.8G', last_channels=1024, stem_channels=None) == DetNASSize(
        [8, 8, 16, 8], 72, [172, 432, 864, 1728], 1024
    )


def test_paths_uniform_over_macs():
    """By bins of equal width, between two costs of the whole classifier."""
    space = detnas_space(SMALL)
    costs = sorted(map(space.cost_of, space))
    rest = 1000  # as of a head, which no space knows
    low, high = costs[len(costs) // 4] + rest, costs[-len(costs) // 4] + rest
    sampler = CostUniformSampler(bins=4, low=low - rest, high=high - rest)
    drawn = [space.cost_of(sampler.draw(space, 0, i)) + rest for i in range(400)]
    assert low <= min(drawn) and max(drawn) <= high
    width = (high - low) / 4
    hits = [min(int((cost - low) / width), 3) for cost in drawn]
    assert all(70 < hits.count(part) < 130 for part in range(4))
