"""DetNAS's backbone, fixed and as a supernet."""

import pytest
import torch
from mmdet.registry import MODELS
from nets import (
    DETNAS,
    SUPERNETS,
    build,
    check_paths,
    equal,
    images,
    in_mode,
    loss_of,
    snapshot,
    some_archs,
)
from published import BLOCK_MACS, detnas_300m
from tiny import alone, build_detector, candidate_evaluator
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.flop_counter import FlopCounterMode

from mmcr.cost.budget import own_costs
from mmcr.cost.units import count
from mmcr.errors import UserError
from mmcr.models import DetNASNet, reallocate
from mmcr.models.backbones.detnas import ShuffleBlock
from mmcr.search import Complete, Proposal
from mmcr.space import DETNAS_NETS, DETNAS_PUBLISHED, block_arch
from mmcr.space.detnas import Place

pytestmark = pytest.mark.usefixtures('quiet_mmdet')

SUPERNET = SUPERNETS['detnas-block']
BLOCKS = ((0,), (1, 2), (3,), (0, 3))
FIXED = dict(DETNAS, blocks=BLOCKS, stage_blocks=(1, 2, 1, 2))
BN = dict(type='BN')


def block_of(kind, stride=1, shuffle=1, inputs=8, outputs=8):
    return ShuffleBlock(Place('stage1.0', inputs, outputs, stride), kind, shuffle, BN)


def layers_of(chain, x):
    """What runs, in order: convs as kernel, stride, channels; 'd' for depthwise."""
    seen = []

    def note(module, *_):
        if isinstance(module, nn.Conv2d):
            assert module.bias is None
            assert module.padding == tuple(k // 2 for k in module.kernel_size)
            assert module.groups in (1, module.in_channels)
            width = f'{module.in_channels}>{module.out_channels}'
            kind = 'd' if module.groups > 1 else 'c'
            seen.append(f'{kind}{module.kernel_size[0]}s{module.stride[0]} {width}')
        else:
            seen.append({nn.BatchNorm2d: 'bn', nn.ReLU: 'relu'}[type(module)])

    for module in chain.modules():
        if not list(module.children()):
            module.register_forward_hook(note)
    chain(x)
    return ', '.join(seen)


@pytest.mark.parametrize(
    'shuffle, order', [(1, [0, 4, 1, 5, 2, 6, 3, 7]), (2, [0, 2, 4, 6, 1, 3, 5, 7])]
)
def test_the_first_half_passes_and_the_second_is_convolved(shuffle, order):
    block = block_of(0, shuffle=shuffle)
    block.branch = nn.Identity()
    x = torch.arange(8.0).view(1, 8, 1, 1)
    assert block(x).flatten().tolist() == order


def test_a_block_that_halves_the_resolution_splits_nothing():
    block = block_of(0, stride=2, outputs=24)
    x = images(8, channels=8)
    out = block.eval()(x)
    assert equal([out], [torch.cat((block.projection(x), block.branch(x)), 1)])
    assert out.shape == (2, 24, 4, 4)


@pytest.mark.parametrize('kind, kernel', [(0, 3), (1, 5), (2, 7)])
def test_layers_of_the_shuffle_blocks(kind, kernel):
    assert layers_of(block_of(kind).branch, images(8, channels=4)) == (
        f'c1s1 4>4, bn, relu, d{kernel}s1 4>4, bn, c1s1 4>4, bn, relu'
    )
    halving = block_of(kind, stride=2, outputs=24)
    x = images(8, channels=8)
    assert layers_of(halving.branch, x) == (
        f'c1s1 8>12, bn, relu, d{kernel}s2 12>12, bn, c1s1 12>16, bn, relu'
    )
    assert layers_of(halving.projection, x) == (
        f'd{kernel}s2 8>8, bn, c1s1 8>8, bn, relu'
    )


def test_layers_of_the_xception_block():
    assert layers_of(block_of(3).branch, images(8, channels=4)) == ', '.join(
        ['d3s1 4>4, bn, c1s1 4>4, bn, relu'] * 3
    )
    halving = block_of(3, stride=2, outputs=24)
    x = images(8, channels=8)
    assert layers_of(halving.branch, x) == (
        'd3s2 8>8, bn, c1s1 8>12, bn, relu, d3s1 12>12, bn, c1s1 12>12, bn, relu, '
        'd3s1 12>12, bn, c1s1 12>16, bn, relu'
    )
    assert layers_of(halving.projection, x) == 'd3s2 8>8, bn, c1s1 8>8, bn, relu'


def test_stem_and_last_conv():
    net = build(dict(FIXED, out_indices=(4,), last_channels=20))
    stem, last = (net.conv1, (4, 3, 3, 3), 2), (net.conv2, (20, 64, 1, 1), 1)
    for module, shape, stride in (stem, last):
        assert module.conv.weight.shape == shape and module.conv.stride[0] == stride
        assert module.conv.bias is not None
        assert isinstance(module.bn, _BatchNorm)
        assert isinstance(module.activate, nn.ReLU)
    (out,) = net(images(64))
    assert out.shape == (2, 20, 2, 2) and net.out_channels == (20,)
    assert not hasattr(build(FIXED), 'conv2')


def macs_of(run):
    with FlopCounterMode(display=False) as counter, torch.device('meta'):
        run(torch.zeros(1, 3, 224, 224))
    return counter.get_total_flops() // 2


ROWS = {name: {} for name in DETNAS_PUBLISHED}
ROWS['coco-fpn_3.8G, last 1024'] = dict(last_channels=1024)


@pytest.mark.parametrize('row', ROWS)
def test_published_networks_have_the_published_costs(row):
    found, options = DETNAS_PUBLISHED[row.split(',')[0]], ROWS[row]
    with torch.device('meta'):
        backbone = DetNASNet(found.net, found.blocks).eval()
        net = DetNASNet(found.net, found.blocks, out_indices=(4,), **options).eval()
        head = nn.Linear(net.out_channels[-1], 1000)
    fewer = DETNAS_NETS[found.net].last_channels - net.out_channels[-1]
    before = net.size.stage_channels[-1]
    assert macs_of(backbone) == found.backbone_macs
    macs = macs_of(lambda x: head(net(x)[0].mean((2, 3))))
    assert macs == found.macs - fewer * (before * 49 + 1000)
    params = sum(p.numel() for p in backbone.parameters())
    params -= backbone.conv1.conv.bias.numel()
    assert round(params / 1e6, 3) == found.backbone_params
    params = sum(p.numel() for part in (net, head) for p in part.parameters())
    params -= net.conv1.conv.bias.numel() + net.conv2.conv.bias.numel()
    params += fewer * (before + 2 + 1000)
    assert round(params / 1e6, 3) == found.params


@pytest.mark.parametrize('choice', BLOCK_MACS)
def test_blocks_have_the_costs_of_the_authors_table(choice):
    with torch.device('meta'):
        net = DetNASNet(supernet='block')
    place, inputs = net.get_submodule(choice), []
    place.register_forward_pre_hook(lambda _, given: inputs.append(given[0]))
    net(torch.zeros(1, 3, 224, 224, device='meta'))
    found = []
    for option in place.options.values():
        with FlopCounterMode(display=False) as counter:
            option(inputs[0])
        found.append(counter.get_total_flops() // 2)
    assert tuple(found) == BLOCK_MACS[choice]


def test_budgets_count_what_is_published():
    with torch.device('meta'):
        supernet = DetNASNet(supernet='block')
    macs = own_costs(supernet).cost
    assert macs == count(supernet, {}, 'macs', (224, 224)) == detnas_300m().cost
    params = count(supernet, {}, 'params')
    for found in DETNAS_PUBLISHED.values():
        if found.net == '300M':
            arch = block_arch(found.blocks)
            assert macs.total(arch) == found.backbone_macs
            without_bias = params.total(arch) - supernet.size.stem_channels
            assert round(without_bias / 1e6, 3) == found.backbone_params


@pytest.mark.parametrize(
    'options',
    [
        dict(out_indices=(4, 1), last_channels=12),
        dict(frozen_stages=3, norm_eval=True),
        dict(norm_cfg=dict(type='GN', num_groups=2)),
        dict(norm_cfg=None),
        dict(with_cp=True),
        dict(shuffle=2),
    ],
    ids='-'.join,
)
def test_options_of_the_supernet_are_the_fixed_networks(options):
    check_paths(build(SUPERNET, **options), images())


@pytest.mark.parametrize('cfg', [SUPERNET, FIXED], ids=['block', 'fixed'])
def test_frozen_stages_and_norms_that_stay(cfg):
    net = build(cfg, frozen_stages=2)
    frozen = ('conv1.', 'stage1.', 'stage2.')
    for each in (net, in_mode(build(cfg, frozen_stages=2), True)):
        for name, parameter in each.named_parameters():
            assert parameter.requires_grad is not name.startswith(frozen)
    before = snapshot(net)
    loss_of(net(images())).backward()
    state = net.state_dict().items()
    changed = {n.split('.')[0] for n, v in state if not torch.equal(v, before[n])}
    assert changed == {'stage3', 'stage4'}
    net = in_mode(build(cfg, norm_eval=True), True)
    before = snapshot(net)
    net(images())
    assert equal(net.state_dict(), before)


def test_starts_as_the_authors_classifier():
    torch.manual_seed(0)
    net = DetNASNet(supernet='block', out_indices=(4,))
    net.init_weights()
    for name, module in net.named_modules():
        if isinstance(module, nn.Conv2d):
            std = 0.01 if name == 'conv1.conv' else 1 / module.weight.shape[1]
            assert module.weight.std().item() == pytest.approx(std, rel=0.35), name
            assert module.weight.mean().abs() < std
            assert module.bias is None or not module.bias.any()
        if isinstance(module, _BatchNorm):
            assert (module.weight == 1).all() and (module.bias == 1e-4).all()
    # the kinds of a block start from weights of their own
    first, second = net.stage2[1].options['0'], net.stage2[1].options['1']
    assert not torch.equal(first.branch[0].conv.weight, second.branch[0].conv.weight)


def test_another_start():
    net = build(FIXED, init_cfg=dict(type='Constant', layer='Conv2d', val=2))
    net.init_weights()
    convs = (m for m in net.modules() if isinstance(m, nn.Conv2d))
    assert all((conv.weight == 2).all() for conv in convs)


def test_lists_as_in_a_config_file():
    flat = [kind for stage in BLOCKS for kind in stage]
    for blocks in (flat, [list(stage) for stage in BLOCKS]):
        cfg = dict(FIXED, blocks=blocks, stage_blocks=[1, 2, 1, 2], out_indices=[0, 3])
        net = MODELS.build(cfg)
        assert net.blocks == BLOCKS and net.out_channels == (8, 64)


def test_a_baselines_weights_are_of_no_use():
    with pytest.raises(UserError, match='not DetNASNet'):
        reallocate({'layer1.0.conv1.weight': torch.zeros(1)}, build(FIXED))


@pytest.mark.parametrize(
    'arguments, words',
    [
        (dict(), ['needs blocks', "supernet='block'"]),
        (dict(blocks=BLOCKS), ['[4, 4, 8, 4] blocks', str(BLOCKS)]),
        (dict(supernet='stage'), ["None or 'block'", "'stage'"]),
        (dict(supernet='block', blocks=BLOCKS), ['Leave blocks out', str(BLOCKS)]),
        (dict(supernet='block', shuffle=3), ['shuffle must be 1 or 2', '3']),
        (dict(supernet='block', net='600M'), ['300M, 1.3G, 3.8G', "'600M'"]),
        (dict(supernet='block', out_indices=(0, 5)), ['out_indices', '(0, 5)']),
        (dict(supernet='block', out_indices=3), ['out_indices', '3']),
        (dict(supernet='block', out_indices=()), ['out_indices', '()']),
        (dict(supernet='block', frozen_stages=5), ['frozen_stages', '5']),
        (dict(supernet='block', stage_channels=(8, 7, 6, 5)), ['wider', '7, 6, 5']),
    ],
)
def test_bad_arguments_get_a_clear_message(arguments, words):
    with pytest.raises(UserError) as error:
        DetNASNet(**arguments)
    assert all(word in str(error.value) for word in words), error.value


def test_scores_are_those_of_the_fixed_networks(shapes):
    candidates = candidate_evaluator(build_detector(SUPERNET), shapes, plain=True)
    archs = some_archs(candidates.backbone.space, 2)
    proposals = [Proposal(Complete(arch)) for arch in archs]
    for trial in candidates.evaluate(proposals):
        assert trial.metrics == alone(candidates, trial.proposal, shapes)
