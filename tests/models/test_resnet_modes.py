"""mmdet's options in every mode of CRResNet and CRResNeXt."""

import copy

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.optim import OptimWrapper
from nets import (
    FEW,
    RESNET,
    RESNEXT,
    SUPERNETS,
    build,
    check_paths,
    equal,
    images,
    in_mode,
    last_norms,
    loss_of,
    snapshot,
)
from torch.nn.modules.batchnorm import _BatchNorm

from mmcr.models import CRResNet

pytestmark = pytest.mark.usefixtures('quiet_mmdet')

MODES = {
    'fixed': dict(stage_blocks=(1, 2, 1, 2), dilations=(1, (1, 2), (3,), 1)),
    'stage': dict(supernet='stage', stage_choices=FEW),
    'prefix': dict(supernet='stage', share='prefix', stage_choices=FEW),
    'operation': dict(supernet='operation', stage_blocks=(1, 2, 1, 2)),
}


FAMILIES = {
    'r18': dict(RESNET, depth=18),
    'r50': dict(RESNET, depth=50),
    'x50': RESNEXT,
}


@pytest.fixture(
    params=[(family, mode) for family in FAMILIES for mode in MODES], ids='-'.join
)
def mode(request):
    family, name = request.param
    return dict(FAMILIES[family], **MODES[name])


@pytest.mark.parametrize(
    'options',
    [
        dict(deep_stem=True, avg_down=True),
        dict(style='caffe', with_cp=True),
        dict(num_stages=3, strides=(1, 2, 2), out_indices=(0, 2)),
        dict(norm_cfg=dict(type='GN', num_groups=2)),
        dict(in_channels=4, stem_channels=6),
    ],
    ids='-'.join,
)
@pytest.mark.parametrize(
    'name',
    [
        'r18-stage',
        'r50-stage',
        'x50-stage',
        'r50-prefix-stage',
        'r18-operation',
        'r50-operation',
        'x50-operation',
    ],
)
def test_supernet_is_the_fixed_network_with_mmdets_options(name, options):
    cfg = dict(SUPERNETS[name])
    if 'num_stages' in options and cfg['supernet'] == 'stage':
        cfg['stage_choices'] = {k: FEW[k] for k in ('stage1', 'stage2', 'stage3')}
    if 'num_stages' in options and cfg['supernet'] == 'operation':
        cfg['stage_blocks'] = (1, 2, 1)
    net = build(cfg, **options)
    check_paths(net, images(channels=options.get('in_channels', 3)))


def test_frozen_stages(mode):
    net = in_mode(build(mode, frozen_stages=2), True)
    before = snapshot(net)
    optimizer = OptimWrapper(
        torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=0.1)
    )
    optimizer.update_params(loss_of(net(images())))
    frozen = ('conv1.', 'bn1.', 'layer1.', 'layer2.')
    changed = set()
    for name, value in net.state_dict().items():
        if not torch.equal(value, before[name]):
            changed.add(name.split('.')[0])
            assert not name.startswith(frozen)
    assert changed == {'layer3', 'layer4'}
    for name, module in net.named_modules():
        if isinstance(module, _BatchNorm):
            assert module.training is not name.startswith(('bn1', *frozen)), name
    assert all(
        p.requires_grad is not name.startswith(frozen)
        for name, p in net.named_parameters()
    )


def test_norm_eval(mode):
    net = in_mode(build(mode, norm_eval=True), True)
    before = {name: b.clone() for name, b in net.named_buffers()}
    outs = net(images())
    assert equal(dict(net.named_buffers()), before)
    assert equal(in_mode(net, False)(images()), outs)
    assert all(p.requires_grad for p in net.parameters())


@pytest.mark.parametrize('zero', (True, False))
def test_zero_init_residual(mode, zero):
    net = MODELS.build(dict(mode, zero_init_residual=zero))
    net.init_weights()
    last = last_norms(net)
    assert len(last) >= 6
    # mmdet's ResNeXt has no such start, whatever the argument says
    expected = 0 if zero and mode['type'] == 'mmcr.CRResNet' else 1
    assert all((norm.weight == expected).all() for norm in last)
    others = [m for m in net.modules() if isinstance(m, _BatchNorm) and m not in last]
    assert others and all((norm.weight == 1).all() for norm in others)


def test_every_option_is_initialised_like_a_fixed_network():
    net = CRResNet(18, supernet='operation', base_channels=16)
    net.init_weights()
    for block in net.layer4:
        weights = [conv.weight for conv in block.conv2.options.values()]
        assert not torch.equal(weights[0], weights[1])
        for weight in weights:  # Kaiming, fan out
            expected = (2 / (9 * weight.shape[0])) ** 0.5
            assert weight.std().item() == pytest.approx(expected, rel=0.05)


def test_shared_dilation_weights():
    shared = build(SUPERNETS['r50-operation-shared'])
    block = shared.layer2[1]
    assert len({id(conv.weight) for conv in block.conv2.options.values()}) == 1
    assert len({id(norm.weight) for norm in block.norm2.options.values()}) == 3
    copied = copy.deepcopy(shared).layer2[1]
    assert len({id(conv.weight) for conv in copied.conv2.options.values()}) == 1
    separate = build(SUPERNETS['r50-operation'])
    assert sum(p.numel() for p in separate.parameters()) > sum(
        p.numel() for p in shared.parameters()
    )
