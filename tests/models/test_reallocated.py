"""Every backbone of mmdet's that is reallocated: mmdet's options, blocks, dilations."""

import copy
import re

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.optim import OptimWrapper
from nets import (
    BLOCKS,
    BLOCKS_OF_FIVE,
    CONVNEXT,
    FAMILIES,
    NO_BATCH_NORMS,
    NO_DILATIONS,
    SUPERNETS,
    build,
    check_paths,
    equal,
    images,
    in_mode,
    last_norms,
    loss_of,
    mmdets,
    modes_of,
    randomised,
    snapshot,
)
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmcr.errors import UserError
from mmcr.models import CRMobileNetV2, CRRes2Net, CRResNet, CRResNeXt
from mmcr.models.reallocated_backbone import ReallocatedBackbone
from mmcr.registry import MODELS as OURS
from mmcr.space import PUBLISHED, RESNET_STAGES, Arch

pytestmark = pytest.mark.usefixtures('quiet_mmdet')

RESNETS = ('r18', 'r50', 'x50', 'regnet')
CSP = ('cspdarknet', 'cspnext')
#: Names of the convolutions that dilate, inside of a block.
DILATES = re.compile(r'(.*\.)?(depthwise_conv(\.conv)?|conv2|conv2\.conv|convs\.\d)$')
DILATIONS = ((2,), (1, 3), (2,), (3, 1))
DILATIONS_OF_SEVEN = ((2,), (2,), (1, 3), (2,), (3,), (1, 2), (3,))
DCN = dict(
    dcn=dict(type='DCNv2', deform_groups=1), stage_with_dcn=(False,) * 3 + (True,)
)
CONTEXT = dict(
    cfg=dict(type='ContextBlock', ratio=0.5),
    position='after_conv2',
    stages=(False, True, False, True),
)
THREE_STAGES = dict(
    num_stages=3, strides=(1, 2, 2), dilations=(1, 1, 1), out_indices=(0, 2)
)
OPTIONS = {
    'all': [dict()],
    'convs': [
        dict(frozen_stages=2, norm_eval=True),
        dict(norm_cfg=dict(type='GN', num_groups=2)),
        dict(init_cfg=dict(type='Normal', layer='Conv2d', std=0.1)),
    ],
    'resnets': [
        dict(with_cp=True),
        dict(with_cp=True),
        dict(style='caffe'),
        dict(avg_down=True, out_indices=(3, 1)),
        dict(in_channels=4, stem_channels=6),
        dict(strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4)),
        dict(zero_init_residual=False),
    ],
    'r18': [dict(deep_stem=True), THREE_STAGES],
    'r50': [dict(deep_stem=True), THREE_STAGES, dict(plugins=[CONTEXT])],
    'r50d': [
        dict(style='caffe', out_indices=(3, 1)),
        dict(in_channels=4, stem_channels=6),
    ],
    'res2net': [
        dict(strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4)),
        dict(base_channels=16, base_width=3, scales=4),
        THREE_STAGES,
    ],
    'x50': [
        dict(deep_stem=True),
        dict(groups=1, base_width=64, base_channels=16),
        dict(base_channels=16, base_width=3),
    ],
    'regnet': [dict(arch='regnetx_400mf'), dict(deep_stem=True)],
    'mobilenetv2': [
        dict(widen_factor=1.4),
        dict(out_indices=(7, 0, 3)),
        dict(norm_cfg=None),
        dict(act_cfg=dict(type='ReLU')),
        dict(with_cp=True),
    ],
    'csp': [
        dict(use_depthwise=True),
        dict(out_indices=(0, 4)),
        dict(act_cfg=dict(type='ReLU')),
        dict(deepen_factor=0.67, widen_factor=0.25),
        dict(arch='P6', out_indices=(2, 5)),
        dict(arch_ovewrite=[[64, 128, 3, False, True], [128, 192, 3, True, False],
                            [192, 256, 9, True, False], [256, 256, 6, True, False]]),
    ],
    'cspdarknet': [dict(spp_kernal_sizes=(3, 5))],
    'cspnext': [dict(expand_ratio=0.25), dict(channel_attention=False)],
    'convnext': [
        dict(with_cp=True, frozen_stages=2, out_indices=(1, 3)),
        dict(use_grn=True, layer_scale_init_value=0.0, linear_pw_conv=False),
        dict(in_channels=4, stem_patch_size=2, arch='atto'),
    ],
    'swin': [
        dict(with_cp=True),
        dict(frozen_stages=2, out_indices=(1, 3)),
        dict(patch_norm=False, qkv_bias=False, norm_cfg=dict(type='LN', eps=0.1)),
        dict(in_channels=4, patch_size=2, strides=(2, 2, 1, 2), window_size=5),
        dict(mlp_ratio=3, qk_scale=0.3, act_cfg=dict(type='ReLU')),
    ],
}  # fmt: skip
CASES = [
    pytest.param(family, options, id='-'.join([family, *options]))
    for family in FAMILIES
    for options in OPTIONS['all']
    + (OPTIONS['convs'] if family not in NO_BATCH_NORMS else [])
    + (OPTIONS['resnets'] if family in RESNETS else [])
    + (OPTIONS['csp'] if family in CSP else [])
    + OPTIONS[family]
]


@pytest.fixture(params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture(
    params=[
        (family, mode)
        for family in FAMILIES
        if family not in NO_BATCH_NORMS
        for mode in ('fixed', *modes_of(family))
    ],
    ids='-'.join,
)
def any_mode(request):
    family, mode = request.param
    return fixed_cfg(family) if mode == 'fixed' else modes_of(family)[mode]


def dilations_of(family):
    """Entries for each block, and for MobileNetV2's single blocks too."""
    return DILATIONS_OF_SEVEN if family == 'mobilenetv2' else DILATIONS


def fixed_cfg(family):
    blocks = BLOCKS_OF_FIVE if family == 'mobilenetv2' else BLOCKS
    return dict(FAMILIES[family], stage_blocks=blocks, dilations=dilations_of(family))


def seeded(cfg):
    torch.manual_seed(0)
    net = MODELS.build(copy.deepcopy(cfg))
    net.init_weights()
    return net


def convs_of(net):
    return {n: m for n, m in net.named_modules() if isinstance(m, nn.Conv2d)}


def rates_of(net):
    """Dilations by stage and block of the convolutions that dilate."""
    return tuple(tuple(rate_of(block) for block in chain) for chain in chains_of(net))


def rate_of(block):
    """That of its convolutions that dilate, which is one for all of them."""
    rates = {c.dilation[0] for n, c in convs_of(block).items() if DILATES.match(n)}
    return rates.pop() if len(rates) == 1 else rates


def chains_of(net):
    """The blocks of a fixed network, by stage."""
    for stage, *_ in net._stages():
        if isinstance(stage, nn.Sequential):
            yield net.chain_of(net._parts(stage)[-1])


@pytest.mark.parametrize('family, options', CASES)
def test_fixed_network_is_mmdets_with_all_its_options(family, options):
    cfg = dict(FAMILIES[family], **options)
    reference, ours = seeded(mmdets(cfg)), seeded(cfg)
    assert ours.space is None
    assert equal(ours.state_dict(), reference.state_dict())
    randomised(reference)
    ours.load_state_dict(reference.state_dict(), strict=True)
    x = images(channels=options.get('in_channels', 3))
    for training in (False, True):
        reference.train(training), ours.train(training)
        assert equal(ours(x), reference(x))
        for own, theirs in zip(ours.parameters(), reference.parameters()):
            assert own.requires_grad is theirs.requires_grad
        for own, theirs in zip(ours.modules(), reference.modules()):
            assert own.training is theirs.training
    assert equal(ours.state_dict(), reference.state_dict())
    assert ours.out_channels == tuple(y.shape[1] for y in ours(x))


@pytest.mark.parametrize('family, options', CASES)
def test_supernet_is_the_fixed_network_with_all_its_options(family, options):
    for cfg in modes_of(family).values():
        if options.get('arch') == 'P6':
            blocks = (*BLOCKS, 1) if 'stage_blocks' in cfg else None
            cfg = dict(cfg, stage_blocks=blocks)
        if 'num_stages' in options:
            few = dict(cfg.get('stage_choices', {}))
            few.pop('stage4', None)
            cfg = dict(cfg, stage_choices=few, stage_blocks=(1, 2, 1))
        if options.get('dilations', (1,))[-1] > 1 and cfg['supernet'] == 'operation':
            continue  # it chooses them
        net = build(cfg, **copy.deepcopy(options))
        check_paths(net, images(channels=options.get('in_channels', 3)))


@pytest.mark.parametrize('name', ['r18', 'r34', 'r50', 'r101', 'r152', 'x101', 'x152'])
def test_depth_alone_is_mmdets(name):
    kind = 'CRResNet' if name[0] == 'r' else 'CRResNeXt'
    more = {} if name[0] == 'r' else dict(groups=2, base_width=4)
    cfg = dict(type=f'mmcr.{kind}', depth=int(name[1:]), base_channels=4, **more)
    assert equal(seeded(cfg).state_dict(), seeded(mmdets(cfg)).state_dict())


@pytest.mark.parametrize('name', ['regnetx_800mf', 'regnetx_1.6gf', 'regnetx_3.2gf'])
def test_named_regnets_are_mmdets_and_in_their_own_space(name):
    cfg = dict(type='mmcr.CRRegNet', arch=name)
    with torch.device('meta'):
        ours, reference = MODELS.build(cfg), MODELS.build(mmdets(cfg))
        net = MODELS.build(dict(cfg, supernet='stage', share='prefix'))
    theirs = reference.state_dict()
    assert ours.state_dict().keys() == theirs.keys()
    assert all(theirs[name].shape == w.shape for name, w in ours.state_dict().items())
    own = {f'stage{i}': n for i, n in enumerate(reference.stage_blocks, 1)}
    assert Arch(own) in net.space


def test_any_number_of_blocks(family):
    searched = 5 if family == 'mobilenetv2' else 4
    for blocks in ((1, 1, 2, 4, 2)[:searched], (5, 1, 1, 3, 1)[:searched]):
        net = build(FAMILIES[family], stage_blocks=list(blocks))
        assert net.stage_blocks == blocks
        single = (1,) * (family == 'mobilenetv2')
        assert tuple(map(len, chains_of(net))) == single + blocks + single
        assert [out.shape[1] for out in net(images())] == list(net.out_channels)
    # mmdet's tables, and Bottleneck, are mmdet's
    reference, ours = map(seeded, (mmdets(FAMILIES[family]), FAMILIES[family]))
    assert equal(ours.state_dict(), reference.state_dict())


@pytest.mark.parametrize('family', CSP)
def test_deepen_factor_decides_the_default_alone(family):
    cfg = dict(FAMILIES[family], deepen_factor=0.67)
    own = {'cspnext': (2, 4, 4, 2), 'cspdarknet': (2, 6, 6, 2)}[family]
    net = MODELS.build(cfg)
    assert net.stage_blocks == own
    found = MODELS.build(dict(cfg, supernet='stage'))
    assert [max(c.values) for c in found.space.choices] == [2 * n + 1 for n in own]
    arch = Arch(dict(stage1=5, stage2=1, stage3=1, stage4=3))
    again = MODELS.build(found.arch_cfg(arch))
    assert again.stage_blocks == (5, 1, 1, 3)
    built = [len(again.chain_of(stage[-1])) for stage, *_ in again._stages()]
    assert built == [5, 1, 1, 3]


def test_all_outputs_of_mobilenet_v2_and_both_notations():
    net = CRMobileNetV2((2, 2, 3, 4, 4), widen_factor=0.25, out_indices=range(8))
    assert net.out_strides == (2, 4, 8, 16, 16, 32, 32, 32)
    assert net.out_channels == tuple(out.shape[1] for out in net(images()))
    coded = CRMobileNetV2([1, 1, 2, 2, 3, 4, 4, 1, 1, 1], widen_factor=0.25)
    assert coded.stage_blocks == net.stage_blocks


def test_dilations_per_block_dilate_one_conv_of_it(family):
    if family in NO_DILATIONS:
        pytest.skip('without 3x3 convolutions')
    cfg = fixed_cfg(family)
    plain, net = build(dict(cfg, dilations=None)), build(cfg)
    assert rates_of(net) == dilations_of(family)
    convs = convs_of(net).items()
    assert {m.dilation for n, m in convs if not DILATES.match(n)} == {(1, 1)}
    # neither keys nor shapes nor output sizes change, the outputs do
    net.load_state_dict(plain.state_dict(), strict=True)
    x = images()
    assert [y.shape for y in net(x)] == [y.shape for y in plain(x)]
    assert not any(torch.equal(a, b) for a, b in zip(net(x), plain(x)))


@pytest.mark.parametrize('more', [{}, DCN], ids=['conv', 'dcn'])
@pytest.mark.parametrize('family', ['r50', 'x50', 'regnet', 'res2net'])
def test_a_stage_dilated_block_by_block_is_mmdets_dilated_stage(family, more):
    cfg = dict(FAMILIES[family], **copy.deepcopy(more))
    blocks = build(cfg).stage_blocks
    reference = build(mmdets(cfg), dilations=(1, 1, 3, 2))
    ours = build(cfg, dilations=[1, 1, [3] * blocks[2], [2] * blocks[3]])
    ours.load_state_dict(reference.state_dict(), strict=True)
    if more:  # mmcv starts the offsets at 0, where their dilation shows in nothing
        for net in (ours, reference):
            torch.manual_seed(1)
            for name, parameter in net.named_parameters():
                if 'offset' in name:
                    nn.init.normal_(parameter, std=0.1)
    assert equal(ours(images()), reference(images()))


def test_one_int_for_a_basic_stage_dilates_what_mmdet_dilates():
    net = CRResNet(18, base_channels=8, dilations=(1, 2, (1, 3), 1))
    rates = [(b.conv1.dilation[0], b.conv2.dilation[0]) for b in net.layer2]
    assert rates == [(2, 1), (2, 1)]
    rates = [(b.conv1.dilation[0], b.conv2.dilation[0]) for b in net.layer3]
    assert rates == [(1, 1), (1, 3)]


@pytest.mark.parametrize(
    'dilations, rates',
    [
        ((1, 2, [3], 1, [1, 2]), ((1,), (1,), (2, 2), (3,), (1,), (1, 2), (1,))),
        ((3, 1, 2, [3], 1, 1, [2]), ((3,), (1,), (2, 2), (3,), (1,), (1, 1), (2,))),
    ],
)
def test_mobilenet_v2_takes_dilations_of_five_or_seven_stages(dilations, rates):
    assert rates_of(CRMobileNetV2([1, 2, 1, 1, 2], dilations)) == rates
    # a stage dilated as a whole is so in every branch
    net = CRMobileNetV2(supernet='stage', widen_factor=0.25, dilations=(1, 2, 1, 1, 1))
    assert net.layer3.options['2'][1].depthwise_conv.conv.dilation == (2, 2)


@pytest.mark.parametrize('key', PUBLISHED)
def test_published_networks(key):
    found = PUBLISHED[key]
    options = dict(stage_blocks=found.stage_cr, dilations=found.dilations)
    if key == 'mobilenetv2':
        net = CRMobileNetV2(**options)
    else:
        kind = CRResNeXt if key[0] == 'x' else CRResNet
        net = kind(found.depth, **options, base_channels=4)
    rates = found.dilations or tuple((1,) * blocks for blocks in found.stage_cr)
    assert net.stage_blocks == found.stage_cr and rates_of(net) == rates


def test_the_papers_spaces():
    few = dict(stage3=[4], stage1=[1])
    net = CRResNet(18, supernet='stage', base_channels=4, stage_choices=few)
    paper = [choice.values for choice in RESNET_STAGES]
    found = [choice.values for choice in net.space.choices]
    assert found == [(1,), paper[1], (4,), paper[3]]
    net = CRMobileNetV2(supernet='stage', widen_factor=0.25)
    assert net.space.size == 5**5 and len(net.layer3.options['5']) == 5
    net = CRMobileNetV2((2, 2, 3, 4, 4), supernet='operation', widen_factor=0.25)
    names = [choice.name for choice in net.space.choices]
    assert net.space.size == 3**17
    assert (names[0], names[1], names[-1]) == ('stage0.0', 'stage1.0', 'stage6.0')


def test_frozen_stages(any_mode):
    net = in_mode(build(any_mode, frozen_stages=2), True)
    before = snapshot(net)
    trained = [p for p in net.parameters() if p.requires_grad]
    optimizer = OptimWrapper(torch.optim.SGD(trained, lr=0.1))
    optimizer.update_params(loss_of(net(images())))
    name = 'stage' if 'CSP' in any_mode['type'] else 'layer'
    frozen = (f'{name}1.', f'{name}2.')
    stem = ('conv1.', 'bn1.', 'stem.')
    state = net.state_dict().items()
    changed = {n.split('.')[0] for n, v in state if not torch.equal(v, before[n])}
    expected = {f'{name}3', f'{name}4'}
    if any_mode['type'] == 'mmcr.CRMobileNetV2':
        # mmdet's MobileNetV2 freezes the stem's weights, not its statistics
        expected |= {'conv1', 'layer5', 'layer6', 'layer7', 'conv2'}
    assert changed == expected
    for name, module in net.named_modules():
        if isinstance(module, _BatchNorm) and not name.startswith(
            ('conv1', 'bn1', 'stem')
        ):
            assert module.training is not name.startswith(frozen), name
    for name, parameter in net.named_parameters():
        assert parameter.requires_grad is not name.startswith((*stem, *frozen))


def test_norm_eval(any_mode):
    net = in_mode(build(any_mode, norm_eval=True), True)
    before = {name: b.clone() for name, b in net.named_buffers()}
    outs = net(images())
    assert equal(dict(net.named_buffers()), before)
    assert equal(in_mode(net, False)(images()), outs)
    assert all(p.requires_grad for p in net.parameters())


@pytest.mark.parametrize('zero', (True, False))
def test_zero_init_residual(any_mode, zero):
    if any_mode['type'] not in {FAMILIES[family]['type'] for family in RESNETS}:
        pytest.skip("mmdet's MobileNetV2 and CSP networks have no such option")
    net = MODELS.build(dict(any_mode, zero_init_residual=zero))
    net.init_weights()
    last = last_norms(net)
    assert len(last) >= 6
    # of other blocks there is no such start in mmdet, whatever the argument says
    starts = any_mode['type'] not in ('mmcr.CRResNeXt', 'mmcr.CRRes2Net')
    expected = 0 if zero and starts else 1
    assert all((norm.weight == expected).all() for norm in last)
    others = [m for m in net.modules() if isinstance(m, _BatchNorm) and m not in last]
    assert others and all((norm.weight == 1).all() for norm in others)


@pytest.mark.parametrize(
    'kind, blocks, stage, conv',
    [
        (CRResNet, 18, 'layer4', 'conv2'),
        (CRMobileNetV2, [1] * 5, 'layer6', 'depthwise_conv.conv'),
    ],
)
def test_every_option_is_initialised_like_a_fixed_network(kind, blocks, stage, conv):
    net = kind(blocks, supernet='operation')
    net.init_weights()
    for block in getattr(net, stage):
        weights = [c.weight for c in block.get_submodule(conv).options.values()]
        assert not torch.equal(weights[0], weights[1])
        for weight in weights:  # Kaiming, fan out: torch counts all groups' outputs
            expected = (2 / (9 * weight.shape[0])) ** 0.5
            assert weight.std().item() == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize('family', ['r50', 'mobilenetv2'])
def test_shared_dilation_weights(family):
    shared = build(SUPERNETS[f'{family}-operation-shared'])
    for net in (shared, copy.deepcopy(shared)):
        parent, conv, norm = net._dilating(net.layer3[-1])
        convs, norms = (getattr(parent, n).options.values() for n in (conv, norm))
        assert len({id(conv.weight) for conv in convs}) == 1
        assert len({id(norm.weight) for norm in norms}) == 3
    separate = build(SUPERNETS[f'{family}-operation'])
    assert sum(p.numel() for p in separate.parameters()) > sum(
        p.numel() for p in shared.parameters()
    )


def test_the_default_resnext_is_32x4d_and_a_half_width_supernet_32x2d():
    def conv_of(**options):
        with torch.device('meta'):
            return CRResNeXt(50, [1] * 4, **options)

    def of(net):
        conv = net.layer1[0].conv2
        conv = getattr(conv, 'active_option', conv)
        return conv.groups, tuple(conv.weight.shape)

    assert of(conv_of()) == (32, (128, 4, 3, 3))
    half = conv_of(base_channels=32, supernet='operation')
    assert of(half) == (32, (64, 2, 3, 3))
    # a search's `final_backbone` names the width alone
    cfg = half.arch_cfg(half.arch)
    with torch.device('meta'):
        assert of(MODELS.build(dict(cfg))) == (32, (64, 2, 3, 3))
        assert of(MODELS.build({**cfg, 'base_channels': 64})) == (32, (128, 4, 3, 3))
    # halving the number of groups instead
    narrow = dict(base_channels=32, groups=16, base_width=4)
    net = conv_of(**narrow, supernet='operation')
    assert of(net) == (16, (64, 4, 3, 3))
    assert narrow.items() <= net.arch_cfg(net.arch).items()


def test_the_default_res2net_is_26w_4s_and_half_of_it_13w():
    def widths(**options):
        with torch.device('meta'):
            net = CRRes2Net(50, [1] * 4, **options)
        return [len(net.layer1[0].convs), *net.layer1[0].convs[0].weight.shape[:2]]

    assert widths() == [3, 26, 26]
    assert widths(base_channels=32) == [3, 13, 13]
    with torch.device('meta'):
        half = CRRes2Net(50, base_channels=32, supernet='stage', share='prefix')
    assert widths(base_channels=32, base_width=26) == [3, 26, 26]
    assert 'base_width' not in half.arch_cfg(half.arch)


def choices(given):
    return dict(supernet='stage', stage_choices=given)


def refused(family, arguments, words):
    with pytest.raises(UserError) as error:
        MODELS.build(dict(FAMILIES[family], **arguments))
    assert all(word in str(error.value) for word in words), error.value


@pytest.mark.parametrize(
    'arguments, words',
    [
        (dict(stage_blocks=(1, 2, 3)), ['stage_blocks', '1, 2, 3']),
        (dict(stage_blocks=(1, 2, 0, 3)), ['stage_blocks', 'at least 1', '0']),
        (dict(stage_blocks=8), ['stage_blocks', '8']),
        (dict(dilations=(1, 1, 1)), ['dilations', 'one entry per stage', '(1, 1, 1)']),
        (dict(dilations=2), ['dilations', '2']),
        (dict(dilations=[]), ['dilations', '[]']),
        (dict(supernet='width'), ['supernet', "'stage'", "'operation'", "'width'"]),
        (dict(supernet='operation', dilation_choices=(1, 0)), ['dilations', '0']),
        (dict(supernet='operation', dilation_choices=()), ['dilations']),
        (dict(supernet='operation', dilation_choices=2), ['dilations', '2']),
        (choices(dict(stage9=(1, 2))), ['stage_choices', 'stage1', 'stage9']),
        (choices(dict(stage1=(0, 1))), ['stage1', 'at least 1', '0']),
        (choices(dict(stage1=3)), ['stage1', '3']),
        (choices([1, 2, 3, 4]), ['stage_choices']),
        (choices(dict(stage1=(2, 2))), ['stage1', '[2, ']),
        (dict(supernet='stage', share='chain'), ["'branch', 'prefix'", "'chain'"]),
    ],
)
def test_bad_arguments_get_a_clear_message(family, arguments, words):
    if family in NO_DILATIONS and {'dilations', "'operation'"}.intersection(words):
        pytest.skip('without 3x3 convolutions')
    refused(family, arguments, words)


@pytest.mark.parametrize(
    'family, arguments, words',
    [
        ('r18', dict(depth=20), ['depth', '[18, 34, 50, 101, 152]', '20']),
        ('r18', dict(depth='50'), ['depth', "'50'"]),
        ('r18', dict(stage_blocks=(1, 2, 2.5, 3)), ['hold 4 numbers', '2.5']),
        ('r18', dict(dilations=(1, (1, 2, 1), 1, 1)), ['stage 2', '(2)', '(1, 2, 1)']),
        ('r18', dict(dilations=(1, 1, 1, 0)), ['stage 4', 'at least 1', '0']),
        ('r18', dict(dilations=(1, (1, 0), 1, 1)), ['stage 2', '(1, 0)']),
        ('r18', dict(supernet='stage', dilations=((1, 1), 1, 1, 1)), ['fixed network']),
        ('r18', dict(supernet='operation', dilations=(1, 1, 2, 2)), ['must stay at 1']),
        ('x50', dict(depth=18), ['depth', '[50, 101, 152]', '18']),
        ('x50', dict(groups=0), ['groups', 'at least 1', '0']),
        ('x50', dict(base_width=0), ['base_width', 'at least 1', '0']),
        ('x50', dict(base_width=2.5), ['base_width', '2.5']),
        ('res2net', dict(base_width=0), ['base_width', 'at least 1', '0']),
        ('regnet', dict(arch='regnety'), ['regnetx_400mf', 'group_w', "'regnety'"]),
        ('regnet', dict(arch=dict(w0=8)), ['regnetx_400mf', 'group_w', "'w0': 8"]),
        ('mobilenetv2', dict(stage_blocks=[2, *[1] * 9]), ['m1', '[2, 1,']),
        ('mobilenetv2', dict(dilations=(1, (1, 2), 1, 1, 1)), ['stage 2', '(3)']),
        ('mobilenetv2', dict(dilations=((1, 2), *[1] * 6)), ['stage 0', '(1)']),
        ('cspnext', dict(arch='P7'), ['arch', "['P5', 'P6']", "'P7'"]),
        ('cspnext', dict(deepen_factor='1'), ['deepen_factor', "'1'"]),
        ('cspdarknet', dict(widen_factor=[1]), ['widen_factor', '[1]']),
    ],
)
def test_bad_arguments_of_one_family(family, arguments, words):
    refused(family, arguments, words)


def test_every_reallocated_backbone_is_tested():
    kinds = {
        f'mmcr.{name}'
        for name, kind in OURS.module_dict.items()
        if issubclass(kind, ReallocatedBackbone)
    }
    assert kinds == {CONVNEXT['type'], *(cfg['type'] for cfg in FAMILIES.values())}


@pytest.mark.parametrize('kind', [CRResNet, CRResNeXt, CRRes2Net])
@pytest.mark.parametrize('width', [True, 0, -1, 0.5, '64', None, [64]])
def test_a_width_is_a_number_of_channels(kind, width):
    with pytest.raises(UserError, match='base_channels must be an integer'):
        kind(depth=50, base_channels=width)
