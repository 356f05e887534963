"""DetNAS's space by arithmetic: the authors' tables and the published networks."""

import random

import pytest
from published import detnas_300m

from mmcr.errors import UserError
from mmcr.space import (
    DETNAS_NETS,
    DETNAS_PUBLISHED,
    Arch,
    ArchError,
    DetNASSize,
    block_arch,
    blocks_of,
    detnas_size,
    detnas_space,
)
from mmcr.space.detnas import nested_blocks

SMALL = DetNASSize((1, 2, 1, 1), 4, (8, 16, 32, 64))


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
    figures = [(f.top1_error, f.ap, f.ap_pytorch) for f in DETNAS_PUBLISHED.values()]
    assert figures == [
        (26.2, 36.4, 36.6),
        (26.0, 33.3, 34.1),
        (25.9, 81.5, None),
        (25.4, 80.1, None),
        (22.8, 40.0, 40.3),
        (21.6, 42.0, None),
    ]


def test_the_limit_of_the_search_and_the_networks_of_voc():
    within = {n: f.backbone_macs <= 300e6 for n, f in DETNAS_PUBLISHED.items()}
    beyond = [n for n in within if '300M' in n and not within[n]]
    assert beyond == ['voc-fpn_300M', 'voc-retinanet_300M']


def test_the_space_of_300m():
    space = detnas_space(DETNAS_NETS['300M'])
    assert space.size == 4**20 and space.cost is None
    names = [choice.name for choice in space.choices]
    assert names[:5] == ['stage1.0', 'stage1.1', 'stage1.2', 'stage1.3', 'stage2.0']
    assert names[-1] == 'stage4.3'


def test_what_the_authors_table_makes_of_it():
    space = detnas_300m()
    rows = space.cost
    ends = [
        rows.fixed + sum(end(row.values()) for row in rows.costs.values())
        for end in (min, max)
    ]
    assert [round(end / 1e6, 2) for end in ends] == [237.22, 365.47]
    rng = random.Random(0)
    legal = [space.cost_of(space.sample(rng)) <= 300e6 for _ in range(1000)]
    assert 0.66 < sum(legal) / 1000 < 0.72


@pytest.mark.parametrize('row', DETNAS_PUBLISHED)
def test_published_networks_are_members(row):
    found = DETNAS_PUBLISHED[row]
    space = detnas_space(DETNAS_NETS[found.net])
    assert space.size == 4 ** (20 if found.net == '300M' else 40)
    assert block_arch(found.blocks) in space
    assert space.sample(random.Random(0)) in space


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
    [None, '01230', [], [0, 1, 2, 3], [0, 1, 2, 3, 0, 0], [[0, 1], [2], [3], [0]],
     [[0], [1, 2], [3]], [[0], 1, 2, 3, 0], [0, 1, 2, 3, [0]]],
)  # fmt: skip
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
