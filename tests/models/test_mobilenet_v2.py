import pytest
import torch
from mmdet.models.backbones.mobilenet_v2 import MobileNetV2
from mmdet.registry import MODELS
from mmengine.optim import OptimWrapper
from nets import (
    FEW_OF_FIVE,
    MOBILENETV2,
    SUPERNETS,
    build,
    check_paths,
    equal,
    images,
    in_mode,
    loss_of,
    randomised,
    snapshot,
)
from torch.nn.modules.batchnorm import _BatchNorm

from mmcr.errors import UserError
from mmcr.models import CRMobileNetV2
from mmcr.space import PUBLISHED

pytestmark = pytest.mark.usefixtures('quiet_mmdet')

BASELINE = (2, 3, 4, 3, 3)
STRIDES = (2, 4, 8, 16, 16, 32, 32, 32)
MODES = {
    'fixed': dict(stage_blocks=(1, 2, 1, 1, 2), dilations=(1, (1, 2), (3,), 1, 2)),
    'stage': dict(supernet='stage', stage_choices=FEW_OF_FIVE),
    'prefix': dict(supernet='stage', share='prefix', stage_choices=FEW_OF_FIVE),
    'operation': dict(supernet='operation', stage_blocks=(1, 2, 1, 1, 2)),
}


@pytest.fixture(params=MODES)
def mode(request):
    return dict(MOBILENETV2, **MODES[request.param])


def seeded(build):
    torch.manual_seed(0)
    net = build()
    net.init_weights()
    return net


def blocks_of(net):
    """The blocks of the seven layers, in order."""
    return [list(getattr(net, f'layer{i}')) for i in range(1, 8)]


def rates_of(net):
    return tuple(
        tuple(block.depthwise_conv.conv.dilation[0] for block in layer)
        for layer in blocks_of(net)
    )


@pytest.mark.parametrize('given', [{}, dict(stage_blocks=BASELINE)], ids='-'.join)
@pytest.mark.parametrize('widen_factor', (0.25, 1.0, 1.4))
def test_not_reallocated_is_mmdets_mobilenet_v2(widen_factor, given):
    reference = seeded(lambda: MobileNetV2(widen_factor))
    ours = seeded(lambda: CRMobileNetV2(widen_factor=widen_factor, **given))
    assert equal(ours.state_dict(), reference.state_dict())
    assert ours.space is None

    randomised(reference)
    ours.load_state_dict(reference.state_dict(), strict=True)
    x = images(64)
    for training in (False, True):
        reference.train(training), ours.train(training)
        assert equal(ours(x), reference(x))
    assert equal(ours.state_dict(), reference.state_dict())
    reference.load_state_dict(ours.state_dict(), strict=True)
    assert ours.out_channels == tuple(y.shape[1] for y in ours(x))


@pytest.mark.parametrize(
    'options',
    [
        dict(out_indices=(7, 0, 3)),
        dict(frozen_stages=3, norm_eval=True),
        dict(norm_cfg=dict(type='GN', num_groups=2)),
        dict(norm_cfg=None),
        dict(act_cfg=dict(type='ReLU')),
        dict(with_cp=True),
        dict(init_cfg=dict(type='Normal', layer='Conv2d', std=0.1)),
    ],
    ids='-'.join,
)
def test_mmdets_options(options):
    options = dict(widen_factor=0.25, **options)
    reference = seeded(lambda: MobileNetV2(**options))
    ours = seeded(lambda: CRMobileNetV2(**options))
    assert equal(ours.state_dict(), reference.state_dict())
    for training in (False, True):
        reference.train(training), ours.train(training)
        assert equal(ours(images()), reference(images()))
        assert [p.requires_grad for p in ours.parameters()] == [
            p.requires_grad for p in reference.parameters()
        ]
        assert [m.training for m in ours.modules()] == [
            m.training for m in reference.modules()
        ]
    for name in (name for name in SUPERNETS if name.startswith('mobile')):
        check_paths(build({**SUPERNETS[name], **options}), images())


@pytest.mark.parametrize('stage_blocks', [(2, 2, 3, 4, 4), (1, 4, 1, 3, 2)])
def test_any_number_of_blocks_in_both_notations(stage_blocks):
    net = CRMobileNetV2(stage_blocks, widen_factor=0.25, out_indices=range(8))
    assert [len(layer) for layer in blocks_of(net)] == [1, *stage_blocks, 1]
    assert [tuple(y.shape) for y in net(images(64))] == [
        (2, channels, 64 // stride, 64 // stride)
        for channels, stride in zip(net.out_channels, STRIDES)
    ]
    code = [1, 1, *stage_blocks, 1, 1, 1]
    coded = CRMobileNetV2(code, widen_factor=0.25)
    assert coded.stage_blocks == net.stage_blocks == stage_blocks
    coded.load_state_dict(net.state_dict(), strict=True)
    assert MobileNetV2.arch_settings[1] == [6, 24, 2, 2]  # mmdet's table is mmdet's


def test_the_published_network():
    found = PUBLISHED['mobilenetv2']
    plain = CRMobileNetV2(found.stage_cr, widen_factor=0.25)
    net = CRMobileNetV2(found.stage_cr, found.dilations, widen_factor=0.25)
    assert rates_of(net) == found.dilations
    assert rates_of(plain) == tuple((1,) * len(rates) for rates in found.dilations)
    # the depthwise 3x3, and nothing else, dilates
    for name, conv in net.named_modules():
        if isinstance(conv, torch.nn.Conv2d) and 'depthwise' not in name:
            assert conv.dilation == (1, 1)
    net.load_state_dict(plain.state_dict(), strict=True)
    x = images(64)
    assert [y.shape for y in net(x)] == [y.shape for y in plain(x)]
    assert not any(torch.equal(a, b) for a, b in zip(net(x), plain(x)))


@pytest.mark.parametrize(
    'dilations, rates',
    [
        ((1, 2, [3], 1, [1, 2]), ((1,), (1,), (2, 2), (3,), (1,), (1, 2), (1,))),
        ((3, 1, 2, [3], 1, 1, [2]), ((3,), (1,), (2, 2), (3,), (1,), (1, 1), (2,))),
    ],
)
def test_dilations_of_five_or_seven_stages(dilations, rates):
    net = CRMobileNetV2([1, 2, 1, 1, 2], dilations, widen_factor=0.25)
    assert rates_of(net) == rates


def test_the_papers_stage_supernet():
    net = CRMobileNetV2(supernet='stage', widen_factor=0.25)
    assert net.space.size == 5**5
    assert len(net.layer3.options['5']) == 5
    cfg = net.arch_cfg(net.arch)
    assert (cfg['type'], cfg['stage_blocks']) == ('mmcr.CRMobileNetV2', (1, 1, 3, 2, 2))
    # a stage dilated as a whole is so in every branch
    net = CRMobileNetV2(supernet='stage', widen_factor=0.25, dilations=(1, 2, 1, 1, 1))
    assert net.layer3.options['2'][1].depthwise_conv.conv.dilation == (2, 2)


def test_the_operation_supernet_covers_all_seven_stages():
    net = CRMobileNetV2((2, 2, 3, 4, 4), supernet='operation', widen_factor=0.25)
    assert net.space.size == 3**17
    names = [choice.name for choice in net.space.choices]
    assert (names[0], names[1], names[-1]) == ('stage0.0', 'stage1.0', 'stage6.0')


def test_frozen_stages(mode):
    net = in_mode(build(mode, frozen_stages=3), True)
    before = snapshot(net)
    optimizer = OptimWrapper(
        torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=0.1)
    )
    optimizer.update_params(loss_of(net(images())))
    frozen = ('layer1.', 'layer2.', 'layer3.')
    changed = {
        name.split('.')[0]
        for name, value in net.state_dict().items()
        if not torch.equal(value, before[name])
    }
    # mmdet's MobileNetV2 freezes the stem's weights, not its statistics
    assert changed == {'conv1', 'layer4', 'layer5', 'layer6', 'layer7', 'conv2'}
    for name, module in net.named_modules():
        if isinstance(module, _BatchNorm):
            assert module.training is not name.startswith(frozen), name
    assert all(
        p.requires_grad is not name.startswith(('conv1.', *frozen))
        for name, p in net.named_parameters()
    )


def test_norm_eval(mode):
    net = in_mode(build(mode, norm_eval=True), True)
    before = {name: b.clone() for name, b in net.named_buffers()}
    outs = net(images())
    assert equal(dict(net.named_buffers()), before)
    assert equal(in_mode(net, False)(images()), outs)


def test_every_option_is_initialised_like_a_fixed_network():
    net = CRMobileNetV2(supernet='operation', stage_blocks=(1, 1, 1, 1, 1))
    net.init_weights()
    for block in (net.layer6[0], net.layer7[0]):
        weights = [c.weight for c in block.depthwise_conv.conv.options.values()]
        assert not torch.equal(weights[0], weights[1])
        for weight in weights:
            # Kaiming, fan out: torch counts the outputs of all groups
            expected = (2 / (9 * weight.shape[0])) ** 0.5
            assert weight.std().item() == pytest.approx(expected, rel=0.05)


def test_shared_dilation_weights():
    shared = build(SUPERNETS['mobilenetv2-operation-shared'])
    module = shared.layer3[1].depthwise_conv
    assert len({id(conv.weight) for conv in module.conv.options.values()}) == 1
    assert len({id(norm.weight) for norm in module.bn.options.values()}) == 3


def test_lists_as_in_a_config_file():
    net = MODELS.build(
        dict(MOBILENETV2, stage_blocks=[1] * 10, dilations=[[2], 1, 1, 1, [3]])
    )
    assert net.stage_blocks == (1, 1, 1, 1, 1)
    assert rates_of(net) == ((1,), (2,), (1,), (1,), (1,), (3,), (1,))


@pytest.mark.parametrize(
    'arguments, words',
    [
        (dict(stage_blocks=(1, 2, 3)), ['stage_blocks', 'm1', '[1, 2, 3]']),
        (dict(stage_blocks=[2, 1, 2, 3, 4, 3, 3, 1, 1, 1]), ['stage_blocks', '[2, 1,']),
        (dict(stage_blocks=(1, 2, 0, 3, 3)), ['stage_blocks', 'at least 1', '0']),
        (dict(stage_blocks=16), ['stage_blocks', '16']),
        (dict(dilations=(1, 1, 1)), ['dilations', '7', '(1, 1, 1)']),
        (dict(dilations=2), ['dilations', '2']),
        (dict(dilations=(1, (1, 2), 1, 1, 1)), ['stage 2', '(3)', '(1, 2)']),
        (dict(dilations=((1, 2), 1, 1, 1, 1, 1, 1)), ['stage 0', '(1)', '(1, 2)']),
        (dict(supernet='width'), ['supernet', "'stage'", "'operation'", "'width'"]),
        (
            dict(supernet='stage', dilations=((1, 1), 1, 1, 1, 1)),
            ['fixed network', 'stage'],
        ),
        (dict(supernet='operation', dilations=(1, 1, 2, 2, 1)), ['must stay at 1']),
        (
            dict(supernet='stage', stage_choices=dict(stage6=(1, 2))),
            ['stage_choices', 'stage5', 'stage6'],
        ),
        (
            dict(supernet='stage', stage_choices=dict(stage1=(0, 1))),
            ['stage1', 'at least 1', '0'],
        ),
    ],
)
def test_bad_arguments_get_a_clear_message(arguments, words):
    with pytest.raises(UserError) as error:
        CRMobileNetV2(**{'widen_factor': 0.25, **arguments})
    assert all(word in str(error.value) for word in words), error.value
