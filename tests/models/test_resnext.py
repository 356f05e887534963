import pytest
import torch
from mmdet.models.backbones.resnext import ResNeXt
from mmdet.registry import MODELS
from nets import build, counted, equal, fixed_of, images, randomised

from mmcr.errors import UserError
from mmcr.models import CRResNeXt
from mmcr.space import PUBLISHED

pytestmark = pytest.mark.usefixtures('quiet_mmdet')

SMALL = dict(groups=2, base_width=4, base_channels=8, norm_eval=False)


def seeded(build):
    torch.manual_seed(0)
    net = build()
    net.init_weights()
    return net


def shapes_of(net):
    return {name: value.shape for name, value in net.state_dict().items()}


@pytest.mark.parametrize('depth', (50, 101, 152))
def test_depth_alone_is_mmdets_resnext(depth):
    reference = seeded(lambda: ResNeXt(depth=depth, **SMALL))
    ours = seeded(lambda: CRResNeXt(depth, **SMALL))
    assert equal(ours.state_dict(), reference.state_dict())
    assert ours.space is None

    randomised(reference)
    ours.load_state_dict(reference.state_dict(), strict=True)
    x = images(32)
    for training in (False, True):
        reference.train(training), ours.train(training)
        assert equal(ours(x), reference(x))
    reference.load_state_dict(ours.state_dict(), strict=True)


def test_the_default_is_32x4d():
    ours = CRResNeXt(50)
    reference = ResNeXt(depth=50, groups=32, base_width=4)
    assert shapes_of(ours) == shapes_of(reference)
    assert ours.layer1[0].conv2.groups == 32
    assert ours.layer1[0].conv2.weight.shape == (128, 4, 3, 3)


@pytest.mark.parametrize(
    'options',
    [
        dict(style='caffe'),
        dict(deep_stem=True, avg_down=True),
        dict(groups=1, base_width=64, base_channels=16),
        dict(strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4)),
        dict(frozen_stages=2, norm_eval=True),
        dict(base_channels=16, base_width=3),
    ],
    ids='-'.join,
)
def test_fixed_network_takes_mmdets_options(options):
    options = {**SMALL, **options}
    reference = seeded(lambda: ResNeXt(depth=50, **options))
    ours = seeded(lambda: CRResNeXt(50, **options))
    assert equal(ours.state_dict(), reference.state_dict())
    for training in (False, True):
        reference.train(training), ours.train(training)
        assert equal(ours(images()), reference(images()))
        assert [p.requires_grad for p in ours.parameters()] == [
            p.requires_grad for p in reference.parameters()
        ]


@pytest.mark.parametrize('key', ('x50', 'x101'))
def test_published_networks(key):
    found = PUBLISHED[key]
    net = CRResNeXt(found.depth, stage_blocks=found.stage_cr, **SMALL)
    assert tuple(len(getattr(net, name)) for name in net.res_layers) == found.stage_cr
    assert [tuple(y.shape) for y in net(images(64))] == [
        (2, channels, 64 // stride, 64 // stride)
        for channels, stride in zip(net.out_channels, (4, 8, 16, 32))
    ]


def test_dilations_per_block_dilate_the_grouped_conv():
    dilations = ((2,), (1, 3), (1, 2), (3, 1))
    plain = CRResNeXt(50, (1, 2, 2, 2), **SMALL)
    net = CRResNeXt(50, (1, 2, 2, 2), dilations, **SMALL)
    rates = {
        name: conv.dilation[0]
        for name, conv in net.named_modules()
        if isinstance(conv, torch.nn.Conv2d) and conv.groups == 2
    }
    assert rates == {
        f'layer{stage}.{block}.conv2': rate
        for stage, stage_rates in enumerate(dilations, 1)
        for block, rate in enumerate(stage_rates)
    }
    net.load_state_dict(plain.state_dict(), strict=True)
    x = images(64)
    assert [y.shape for y in net(x)] == [y.shape for y in plain(x)]
    assert not any(torch.equal(a, b) for a, b in zip(net(x), plain(x)))


def test_a_half_width_supernet_halves_the_groups():
    cfg = dict(
        type='mmcr.CRResNeXt',
        depth=50,
        base_channels=32,
        supernet='operation',
        stage_blocks=(1, 1, 1, 1),
    )
    net = build(cfg)
    conv = net.layer1[0].conv2.active_option
    assert (conv.groups, tuple(conv.weight.shape)) == (32, (64, 2, 3, 3))
    half, full = (
        counted(CRResNeXt(50, base_channels=width), (64, 64)) for width in (32, 64)
    )
    assert 0.24 < half / full < 0.3

    # a search's `final_backbone` names the width alone
    arch_cfg = net.arch_cfg(net.arch)
    assert fixed_of(net, net.arch).layer1[0].conv2.weight.shape == (64, 2, 3, 3)
    final = MODELS.build({**arch_cfg, 'base_channels': 64})
    assert final.layer1[0].conv2.weight.shape == (128, 4, 3, 3)


def test_halving_the_number_of_groups_instead():
    narrow = dict(base_channels=32, groups=16, base_width=4)
    net = CRResNeXt(50, (1, 1, 1, 1), supernet='operation', **narrow)
    assert net.layer1[0].conv2.active_option.weight.shape == (64, 4, 3, 3)
    cfg = net.arch_cfg(net.arch)
    assert (cfg['groups'], cfg['base_width']) == (16, 4)


@pytest.mark.parametrize(
    'arguments, words',
    [
        (dict(depth=18), ['depth', '[50, 101, 152]', '18']),
        (dict(groups=0), ['groups', 'at least 1', '0']),
        (dict(base_width=0), ['base_width', 'at least 1', '0']),
        (dict(base_width=2.5), ['base_width', '2.5']),
        (dict(stage_blocks=(1, 2)), ['stage_blocks', '(1, 2)']),
    ],
)
def test_bad_arguments_get_a_clear_message(arguments, words):
    with pytest.raises(UserError) as error:
        CRResNeXt(**{'depth': 50, **SMALL, **arguments})
    assert all(word in str(error.value) for word in words), error.value
