"""The arithmetic cost is what the convolutions of the built backbone cost."""

import random

import pytest
from mmdet.registry import MODELS
from nets import FEW, counted

from mmcr.errors import UserError
from mmcr.space import (
    Budget,
    MobileNetV2Macs,
    ResNetMacs,
    ResNeXtMacs,
    SearchSpace,
    mobilenetv2_stage_space,
    resnet_stage_space,
    stage_arch,
    stage_blocks_of,
)

pytestmark = pytest.mark.usefixtures('quiet_mmdet')

SHAPES = [(64, 64), (97, 33), (61, 130)]
RESNET = dict(type='mmcr.CRResNet')
RESNEXT = dict(type='mmcr.CRResNeXt', depth=50)
MOBILENETV2 = dict(type='mmcr.CRMobileNetV2')
# arguments of the backbone, and of the cost where it takes others
FAMILIES = {
    'r18': (ResNetMacs, RESNET, dict(depth=18, base_channels=8)),
    'r50': (ResNetMacs, RESNET, dict(depth=50, base_channels=8)),
    'r50-caffe': (
        ResNetMacs,
        RESNET,
        dict(depth=50, base_channels=8, stem_channels=12, in_channels=4, style='caffe'),
    ),
    'r34-stem': (ResNetMacs, RESNET, dict(depth=34, base_channels=8, stem_channels=6)),
    'x50': (ResNeXtMacs, RESNEXT, dict(base_channels=16, groups=4)),
    'x50-half': (ResNeXtMacs, RESNEXT, dict(base_channels=24, stem_channels=64)),
    'x50-given': (
        ResNeXtMacs, RESNEXT, dict(base_channels=12, groups=3, base_width=7),
    ),
    'x50-one-group': (ResNeXtMacs, RESNEXT, dict(base_channels=8, groups=1)),
    'mobilenetv2': (MobileNetV2Macs, MOBILENETV2, dict(widen_factor=0.25)),
    'mobilenetv2-odd': (MobileNetV2Macs, MOBILENETV2, dict(widen_factor=0.37)),
    'mobilenetv2-wide': (MobileNetV2Macs, MOBILENETV2, dict(widen_factor=1.3)),
}  # fmt: skip


def random_arch(rng, stages):
    blocks = [rng.randint(1, 4) for _ in range(stages)]
    return blocks, [[rng.randint(1, 3) for _ in range(n)] for n in blocks]


@pytest.mark.parametrize('family', FAMILIES)
def test_equals_the_convs_of_the_built_backbone(family):
    cost, cfg, arguments = FAMILIES[family]
    rng = random.Random(family)
    for shape in SHAPES:
        macs = cost(shape, **arguments)
        blocks, dilations = random_arch(rng, macs.num_stages)
        net = MODELS.build(
            dict(cfg, **arguments, stage_blocks=blocks, dilations=dilations)
        )
        expected = counted(net, shape, arguments.get('in_channels', 3))
        assert macs.total(blocks) == expected
        # the sum over the choices is the whole backbone
        assert SearchSpace(_any_space(family).choices, macs).cost_of(
            stage_arch(blocks)
        ) == macs.total(blocks)


def _any_space(family):
    is_mobile = family.startswith('mobile')
    return mobilenetv2_stage_space() if is_mobile else resnet_stage_space()


@pytest.mark.parametrize(
    'cost, cfg, blocks, gmacs',
    [
        # as the networks' own papers and model zoos give them at 224x224,
        # without the classifier
        (ResNetMacs((224, 224), 18), RESNET, (2, 2, 2, 2), 1.81),
        (ResNetMacs((224, 224), 50), RESNET, (3, 4, 6, 3), 4.09),
        (ResNeXtMacs((224, 224)), RESNEXT, (3, 4, 6, 3), 4.23),
        (MobileNetV2Macs((224, 224)), MOBILENETV2, (2, 3, 4, 3, 3), 0.300),
    ],
    ids=['r18', 'r50', 'x50', 'mobilenetv2'],
)
def test_full_width(cost, cfg, blocks, gmacs):
    assert cost.total(blocks) / 1e9 == pytest.approx(gmacs, rel=0.01)


def test_one_path_of_a_supernet():
    net = MODELS.build(
        dict(RESNEXT, base_channels=16, supernet='stage', stage_choices=FEW)
    )
    macs = ResNeXtMacs((65, 40), base_channels=16)
    arch = net.space.sample(random.Random(0))
    net.set_arch(arch)
    assert counted(net, (65, 40)) == macs.total(stage_blocks_of(arch))


def test_half_width_mobilenet_v2_costs_a_third():
    blocks = (2, 3, 4, 3, 3)
    half = MobileNetV2Macs((224, 224), widen_factor=0.5).total(blocks)
    assert 0.25 < half / MobileNetV2Macs((224, 224)).total(blocks) < 0.4


def test_a_budget_in_multiply_accumulates():
    macs = MobileNetV2Macs((128, 128))
    baseline = macs.total((2, 3, 4, 3, 3))
    budget = Budget(int(0.99 * baseline), int(1.01 * baseline))
    space = SearchSpace(mobilenetv2_stage_space().choices, macs, budget)
    assert stage_arch((2, 3, 4, 3, 3)) in space
    members = list(space)
    assert 1 < len(members) == space.size < 5**5
    assert all(macs.total(stage_blocks_of(arch)) in budget for arch in members)


def test_a_resnet_block_costs_the_same_in_every_stage():
    macs = ResNetMacs((256, 256))
    costs = {macs(f'stage{i}', 4) - macs(f'stage{i}', 3) for i in (1, 2, 3, 4)}
    assert len(costs) == 1


def test_the_papers_ten_numbers():
    macs = MobileNetV2Macs((64, 64))
    assert macs.total([1, 1, 2, 2, 3, 4, 4, 1, 1, 1]) == macs.total((2, 2, 3, 4, 4))


@pytest.mark.parametrize(
    'call, message',
    [
        (lambda: ResNetMacs((0, 64)), r'height and a width .* but got \(0, 64\)'),
        (lambda: ResNetMacs((64,)), r'but got \(64,\)'),
        (lambda: ResNetMacs((64, 64))('stage5', 1), 'stage1, .*, stage4.* stage5'),
        (lambda: ResNetMacs((64, 64)).total((1, 2)), r'4 numbers .* \[1, 2\]'),
        (lambda: MobileNetV2Macs((64, 64)).total((1, 2)), 'm1 to m5'),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(UserError, match=message):
        call()
