import subprocess
import sys

import pytest
import torch
from mmdet.models.backbones.resnet import ResNet
from nets import equal, images, randomised

from mmcr.errors import UserError
from mmcr.models import CRResNet
from mmcr.space import PUBLISHED, Arch, ArchError

pytestmark = pytest.mark.usefixtures('quiet_mmdet')

DEPTHS = (18, 34, 50, 101, 152)


def seeded(build):
    torch.manual_seed(0)
    net = build()
    net.init_weights()
    return net


@pytest.mark.parametrize('depth', DEPTHS)
def test_depth_alone_is_mmdets_resnet(depth):
    reference = seeded(lambda: ResNet(depth, base_channels=4, norm_eval=False))
    ours = seeded(lambda: CRResNet(depth, base_channels=4, norm_eval=False))

    assert equal(ours.state_dict(), reference.state_dict())
    assert ours.space is None

    randomised(reference)
    ours.load_state_dict(reference.state_dict(), strict=True)
    x = images(32)
    for training in (False, True):
        reference.train(training), ours.train(training)
        assert equal(ours(x), reference(x))
    assert equal(ours.state_dict(), reference.state_dict())
    reference.load_state_dict(ours.state_dict(), strict=True)


CONTEXT = dict(
    cfg=dict(type='ContextBlock', ratio=0.5),
    position='after_conv2',
    stages=(False, True, False, True),
)
OPTIONS = [
    dict(style='caffe'),
    dict(deep_stem=True, avg_down=True),
    dict(stem_channels=6, in_channels=4),
    dict(num_stages=3, strides=(1, 2, 2), dilations=(1, 1, 1), out_indices=(0, 2)),
    dict(strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4)),
    dict(frozen_stages=2, norm_eval=True),
    dict(norm_cfg=dict(type='GN', num_groups=2)),
    dict(zero_init_residual=False),
    dict(init_cfg=dict(type='Normal', layer='Conv2d', std=0.1)),
]


@pytest.mark.parametrize(
    'depth, options',
    [(depth, options) for depth in (18, 50) for options in OPTIONS]
    + [(50, dict(plugins=[CONTEXT]))],
    ids=lambda value: '-'.join(value) if isinstance(value, dict) else str(value),
)
def test_fixed_network_takes_mmdets_options(depth, options):
    reference = seeded(lambda: ResNet(depth, base_channels=8, **options))
    ours = seeded(lambda: CRResNet(depth, base_channels=8, **options))
    assert equal(ours.state_dict(), reference.state_dict())
    x = images(64, channels=options.get('in_channels', 3))
    for training in (False, True):
        reference.train(training), ours.train(training)
        assert equal(ours(x), reference(x))
        assert [p.requires_grad for p in ours.parameters()] == [
            p.requires_grad for p in reference.parameters()
        ]
        assert [m.training for m in ours.modules()] == [
            m.training for m in reference.modules()
        ]


@pytest.mark.parametrize('stage_blocks', [(1, 1, 2, 4), (5, 1, 1, 3)])
@pytest.mark.parametrize('depth', (18, 50))
def test_any_number_of_blocks(depth, stage_blocks):
    net = CRResNet(depth, stage_blocks=stage_blocks, base_channels=8)
    assert tuple(len(getattr(net, name)) for name in net.res_layers) == stage_blocks
    expansion = 1 if depth == 18 else 4
    assert net.out_channels == tuple(8 * 2**i * expansion for i in range(4))
    assert [tuple(y.shape) for y in net(images(64))] == [
        (2, channels, 64 // stride, 64 // stride)
        for channels, stride in zip(net.out_channels, (4, 8, 16, 32))
    ]


def test_two_backbones_do_not_share_their_depth():
    CRResNet(50, stage_blocks=(1, 1, 1, 1), base_channels=8)
    assert CRResNet(50, base_channels=8).stage_blocks == (3, 4, 6, 3)
    assert ResNet(50, base_channels=8).stage_blocks == (3, 4, 6, 3)


@pytest.mark.parametrize('depth, dilated', [(50, 'conv2'), (18, 'conv2')])
def test_dilations_per_block_dilate_one_conv_of_it(depth, dilated):
    dilations = ((2,), (1, 3), (1, 2), (3, 1))
    plain = CRResNet(depth, stage_blocks=(1, 2, 2, 2), base_channels=8)
    net = CRResNet(
        depth, stage_blocks=(1, 2, 2, 2), base_channels=8, dilations=dilations
    )

    expected = {
        name: conv.dilation
        for name, conv in plain.named_modules()
        if isinstance(conv, torch.nn.Conv2d)
    }
    for stage, rates in enumerate(dilations, start=1):
        for block, rate in enumerate(rates):
            expected[f'layer{stage}.{block}.{dilated}'] = (rate, rate)
    convs = {
        name: conv
        for name, conv in net.named_modules()
        if isinstance(conv, torch.nn.Conv2d)
    }
    assert {name: conv.dilation for name, conv in convs.items()} == expected
    plain_convs = dict(plain.named_modules())
    assert all(conv.stride == plain_convs[name].stride for name, conv in convs.items())

    # neither keys nor shapes nor output sizes change, the outputs do
    net.load_state_dict(plain.state_dict(), strict=True)
    x = images(64)
    assert [y.shape for y in net(x)] == [y.shape for y in plain(x)]
    assert not any(torch.equal(a, b) for a, b in zip(net(x), plain(x)))


def test_a_bottleneck_stage_dilated_block_by_block_is_mmdets_dilated_stage():
    reference = ResNet(50, base_channels=8, dilations=(1, 1, 2, 3))
    ours = CRResNet(50, base_channels=8, dilations=(1, 1, (2,) * 6, (3,) * 3))
    ours.load_state_dict(reference.state_dict(), strict=True)
    assert equal(ours(images()), reference(images()))


def test_one_int_for_a_basic_stage_dilates_what_mmdet_dilates():
    net = CRResNet(18, base_channels=8, dilations=(1, 2, (1, 3), 1))
    assert [b.conv1.dilation for b in net.layer2] == [(2, 2)] * 2
    assert [b.conv2.dilation for b in net.layer2] == [(1, 1)] * 2
    assert [b.conv1.dilation for b in net.layer3] == [(1, 1)] * 2
    assert [b.conv2.dilation for b in net.layer3] == [(1, 1), (3, 3)]


@pytest.mark.parametrize('name, depth', [('r18', 18), ('r50', 50), ('r101', 101)])
def test_published_networks(name, depth):
    found = PUBLISHED[name]
    net = CRResNet(
        depth, stage_blocks=found.stage_cr, dilations=found.dilations, base_channels=4
    )
    assert net.stage_blocks == tuple(found.stage_cr)
    assert [
        [b.conv2.dilation[0] for b in getattr(net, layer)] for layer in net.res_layers
    ] == [list(rates) for rates in found.dilations]


def test_lists_as_in_a_config_file():
    net = CRResNet(
        18, base_channels=8, stage_blocks=[1, 1, 1, 2], dilations=[1, 1, [2], [1, 3]]
    )
    assert net.stage_blocks == (1, 1, 1, 2)
    assert net.layer4[1].conv2.dilation == (3, 3)


def test_the_papers_stage_supernet_has_307_blocks():
    net = CRResNet(50, supernet='stage', base_channels=4, norm_eval=False)
    block = type(net.layer1.options['1'][0])
    assert sum(isinstance(module, block) for module in net.modules()) == 307
    assert net.space.size == 10**4
    net.set_arch(Arch(dict(stage1=2, stage2=3, stage3=17, stage4=11)))


def test_stage_choices_that_are_left_out_are_the_papers():
    net = CRResNet(
        18,
        supernet='stage',
        base_channels=4,
        stage_choices=dict(stage3=[4], stage1=[1]),
    )
    assert [choice.values for choice in net.space.choices] == [
        (1,),
        tuple(range(1, 11)),
        (4,),
        (2, 3, 4, 6, 7, 9, 11, 13, 15, 17),
    ]
    assert [choice.name for choice in net.space.choices] == [
        'stage1',
        'stage2',
        'stage3',
        'stage4',
    ]


@pytest.mark.parametrize(
    'arguments, words',
    [
        (dict(depth=20), ['depth', '[18, 34, 50, 101, 152]', '20']),
        (dict(depth='50'), ['depth', "'50'"]),
        (dict(stage_blocks=(1, 2, 3)), ['stage_blocks', '4', '(1, 2, 3)']),
        (
            dict(stage_blocks=(1, 2, 0, 3)),
            ['stage_blocks', 'at least 1', '(1, 2, 0, 3)'],
        ),
        (dict(stage_blocks=(1, 2, 2.5, 3)), ['stage_blocks', '2.5']),
        (dict(stage_blocks=8), ['stage_blocks', '8']),
        (dict(dilations=(1, 1, 1)), ['dilations', '4', '(1, 1, 1)']),
        (dict(dilations=2), ['dilations', '2']),
        (dict(dilations=[]), ['dilations', '4', '[]']),
        (dict(dilations=(1, (1, 2, 1), 1, 1)), ['stage 2', '(2)', '(1, 2, 1)']),
        (dict(dilations=(1, 1, 1, 0)), ['stage 4', 'at least 1', '0']),
        (dict(dilations=(1, (1, 0), 1, 1)), ['stage 2', 'at least 1', '(1, 0)']),
        (dict(supernet='width'), ['supernet', "'stage'", "'operation'", "'width'"]),
        (
            dict(supernet='stage', dilations=((1, 1), 1, 1, 1)),
            ['fixed network', 'stage'],
        ),
        (
            dict(supernet='operation', dilations=(1, 1, 2, 2)),
            ['dilations', '(1, 1, 2, 2)'],
        ),
        (dict(supernet='operation', dilation_choices=(1, 0)), ['dilations', '0']),
        (dict(supernet='operation', dilation_choices=()), ['dilations']),
        (dict(supernet='operation', dilation_choices=2), ['dilations', '2']),
        (
            dict(supernet='stage', stage_choices=dict(stage5=(1, 2))),
            ['stage_choices', 'stage1', 'stage5'],
        ),
        (
            dict(supernet='stage', stage_choices=dict(stage1=(0, 1))),
            ['stage1', 'at least 1', '0'],
        ),
        (dict(supernet='stage', stage_choices=dict(stage1=3)), ['stage1', '3']),
        (dict(supernet='stage', stage_choices=[1, 2, 3, 4]), ['stage_choices']),
        (
            dict(supernet='stage', stage_choices=dict(stage1=(2, 2))),
            ['stage1', '[2, 2]'],
        ),
    ],
)
def test_bad_arguments_get_a_clear_message(arguments, words):
    with pytest.raises(UserError) as error:
        CRResNet(**{'depth': 18, 'base_channels': 8, **arguments})
    assert all(word in str(error.value) for word in words), error.value


def test_a_fixed_network_has_no_architectures():
    net = CRResNet(18, base_channels=8)
    for ask in (
        lambda: net.set_arch(Arch(dict(stage1=1))),
        lambda: net.arch_cfg(Arch(dict(stage1=1))),
        lambda: net.arch,
    ):
        with pytest.raises(UserError, match="fixed network.*supernet='stage'"):
            ask()


def test_an_arch_of_the_other_supernet_is_refused():
    net = CRResNet(18, base_channels=8, supernet='operation')
    with pytest.raises(ArchError, match='stage1'):
        net.set_arch(Arch(dict(stage1=1, stage2=1, stage3=2, stage4=2)))


def test_a_fresh_process_finds_mmcrs_types_by_their_scope():
    # mmengine's registries find mmcr's through mmdet's, its default scope in a Runner
    code = """
from mmengine.registry import HOOKS, LOOPS, METRICS, MODELS, DefaultScope
DefaultScope.get_instance('test', scope_name='mmdet')
for registry, kind in ((HOOKS, 'ArchSamplingHook'), (LOOPS, 'ArchSearchLoop'),
                       (METRICS, 'UnroundedCocoMetric')):
    with registry.switch_scope_and_registry(None) as mmdets:
        assert mmdets.get(f'mmcr.{kind}') is not None, kind
net = MODELS.build(dict(type='mmcr.CRResNet', depth=18, base_channels=8))
print(type(net).__module__)
"""
    result = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == 'mmcr.models.backbones.resnet'
