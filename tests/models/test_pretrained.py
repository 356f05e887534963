"""From a public checkpoint to a reallocated backbone."""

import re
import subprocess
import sys
from pathlib import Path
from pickle import UnpicklingError

import numpy as np
import pytest
import torch
from baselines import (
    MOBILE,
    R18,
    R50,
    X50,
    TorchvisionMobileNetV2,
    mmpretrain_checkpoint,
    outputs,
    reallocated,
    save_classifier,
    source,
)
from mmdet.registry import MODELS
from mmengine.logging import HistoryBuffer
from nets import (
    FAMILIES,
    equal,
    images,
    in_mode,
    loss_of,
    mmdets,
    randomised,
    snapshot,
)
from tiny import detector_cfg

from mmcr.errors import UserError
from mmcr.models import path_state_dict, reallocate
from mmcr.models.weights.checkpoint import (
    CheckpointError,
    history_globals,
    read_weights,
)
from mmcr.space import Arch

pytestmark = pytest.mark.usefixtures('quiet_mmdet')

ROOT = Path(__file__).parents[2]


@pytest.fixture(params=FAMILIES)
def baseline(request):
    """Every backbone of mmdet's that is reallocated."""
    return mmdets(FAMILIES[request.param])


def deeper(cfg):
    """No stage has fewer blocks than the baseline."""
    blocks = reallocated(cfg).stage_blocks
    return dict(stage_blocks=[n + i % 3 for i, n in enumerate(blocks)])


def is_linear(module):
    return isinstance(module, torch.nn.Linear)


def torchvision_names(state):
    return {**state, 'fc.weight': torch.zeros(2, 2), 'fc.bias': torch.zeros(2)}


def detector_names(state):
    return {
        'neck.lateral_convs.0.conv.weight': torch.zeros(1),
        **{f'module.backbone.{name}': weight for name, weight in state.items()},
        'module.roi_head.bbox_head.fc_cls.weight': torch.zeros(1),
    }


def without_counters(state):
    return {n: w for n, w in state.items() if not n.endswith('num_batches_tracked')}


def test_deeper_network_computes_what_the_source_does(baseline):
    before = source(baseline)
    net = reallocated(baseline, **deeper(baseline))
    assert not equal(outputs(net), outputs(before))
    report = reallocate(before.state_dict(), net)
    assert equal(outputs(net), outputs(before))
    assert sum(chain.new for chain in report.chains) >= 2
    assert not any(chain.left_out for chain in report.chains)
    assert report.copied == len(before.state_dict()) and not report.kept

    # every new block is where the first step can change the function
    net = in_mode(net, True)
    loss_of(net(images())).backward()
    ends = [m.weight for m in net.modules() if hasattr(m, 'affine') or is_linear(m)]
    new = [weight for weight in ends if not weight.any()]
    branches = 2 if baseline['type'] == 'mmdet.SwinTransformer' else 1
    assert len(new) == branches * sum(chain.new for chain in report.chains)
    assert all(weight.grad.any() for weight in new)


@pytest.mark.parametrize(
    'norm', [dict(type='GN', num_groups=2), dict(type='IN', affine=True)]
)
def test_new_blocks_are_the_identity_whatever_the_norm(norm):
    cfg = dict(R18, norm_cfg=norm)
    before, net = source(cfg), reallocated(cfg, stage_blocks=(2, 3, 2, 2))
    reallocate(before.state_dict(), net)
    assert equal(outputs(net), outputs(before))


@pytest.mark.parametrize(
    'options, frozen',
    [
        (dict(frozen_stages=1), ['layer1.2']),
        (dict(norm_cfg=dict(type='BN', requires_grad=False)), ['layer1.2', 'layer3.2']),
    ],
)
def test_report_names_new_blocks_that_cannot_learn(options, frozen):
    net = reallocated(R18, stage_blocks=(3, 2, 3, 2), **options)
    report = reallocate(source(R18).state_dict(), net)
    assert list(report.frozen) == frozen
    assert 'such as layer1.2' in str(report)


def test_a_new_block_needs_a_norm_with_a_weight():
    affineless = dict(stage_blocks=(3, 2, 2, 2), norm_cfg=dict(type='BN', affine=False))
    net = MODELS.build(dict(R18, type='mmcr.CRResNet', **affineless))
    before = snapshot(net)
    weights = {n: w for n, w in source(R18).state_dict().items() if n in before}
    with pytest.raises(UserError, match='layer1.2 has no weight.*affine=True'):
        reallocate(weights, net)
    assert equal(before, net.state_dict())


@pytest.mark.parametrize(
    'names, ignored',
    [
        (dict, {}),
        (torchvision_names, dict(fc=2)),
        (without_counters, {}),
        (lambda state: mmpretrain_checkpoint(state)['state_dict'], dict(head=1)),
        (detector_names, dict(neck=1, roi_head=1)),
    ],
    ids=['backbone', 'torchvision', 'old', 'mmpretrain', 'detector'],
)
def test_names(names, ignored):
    before = source(R18)
    net = reallocated(R18)
    report = reallocate(names(before.state_dict()), net)
    assert equal(outputs(net), outputs(before))
    assert report.ignored == ignored
    text = str(report)
    assert all(part in text for part in ('layer4', *ignored))


def test_first_blocks_stay_and_dilation_changes_no_weight():
    before = source(R50).state_dict()
    net = reallocated(
        R50,
        stage_blocks=(1, 3, 5, 7),
        dilations=((1,), (1, 2, 1), (1, 1, 2, 3, 1), (1, 2, 1, 3, 2, 2, 3)),
    )
    report = reallocate(before, net)
    counts = [(chain.copied, chain.new, chain.left_out) for chain in report.chains]
    assert counts == [(1, 0, 2), (3, 0, 1), (5, 0, 1), (3, 4, 0)]
    after = net.state_dict()
    common = {name: weight for name, weight in after.items() if name in before}
    assert len(common) == report.copied
    assert equal(common, {name: before[name] for name in common})
    for name in after.keys() - before.keys():
        assert int(name.split('.')[1]) >= 3 and name.startswith('layer4')
        if 'bn' in name and 'var' not in name and name.endswith(('weight', 'bias')):
            is_one = name.endswith('weight') and 'bn3' not in name
            assert (after[name] == int(is_one)).all()


@pytest.mark.parametrize(
    'cfg, supernet',
    [
        (R18, dict(stage_choices=dict(stage1=(1, 2, 3), stage3=(2,), stage4=(1, 3)))),
        (R50, dict(stage_choices=dict(stage1=(3, 1), stage3=(6, 2), stage4=(3, 2)))),
        (MOBILE, {}),
    ],
    ids=['r18', 'r50', 'mobilenetv2'],
)
def test_stage_supernet_gives_every_branch_its_blocks(cfg, supernet):
    before = source(cfg)
    net = reallocated(cfg, supernet='stage', **supernet)
    reallocate(before.state_dict(), net)
    deepest = Arch({c.name: max(c.values) for c in net.space.choices})
    net.set_arch(deepest)
    assert equal(outputs(net), outputs(before))

    # every branch is what the fixed network gets, new blocks' random convs aside
    for arch in (deepest, Arch({c.name: min(c.values) for c in net.space.choices})):
        fixed = MODELS.build(net.arch_cfg(arch))
        reallocate(before.state_dict(), fixed)
        wanted = fixed.state_dict()
        for name, weight in path_state_dict(net, arch).items():
            if name in before.state_dict() or weight.dim() < 2:
                assert torch.equal(weight, wanted[name])


@pytest.mark.parametrize('share', (False, True), ids=('alone', 'shared'))
@pytest.mark.parametrize('cfg', (R18, R50, MOBILE), ids=('r18', 'r50', 'mobilenetv2'))
def test_operation_supernet_gives_every_option_the_same_weights(cfg, share):
    before = source(cfg)
    net = reallocated(cfg, supernet='operation', share_dilation_weights=share)
    reallocate(before.state_dict(), net)
    for dilation in (1, 3):
        arch = Arch({choice.name: dilation for choice in net.space.choices})
        net.set_arch(arch)
        assert equal(path_state_dict(net, arch), before.state_dict())
        assert equal(outputs(net), outputs(before)) is (dilation == 1)


def test_mobilenet_of_torchvision():
    before = in_mode(randomised(TorchvisionMobileNetV2()), False)
    net = reallocated(
        dict(MOBILE, widen_factor=1.0), stage_blocks=(3, 3, 4, 3, 4), out_indices=(7,)
    )
    report = reallocate(before.state_dict(), net)
    assert equal(outputs(net), outputs(before))
    assert report.ignored == dict(classifier=2)


def test_mobilenet_of_mmpretrain():
    before = source(MOBILE)
    names = {}
    for name, weight in before.state_dict().items():
        convs = ['expand_conv', 'depthwise_conv', 'linear_conv']
        for i, conv in enumerate(convs[1:] if 'layer1' in name else convs):
            name = name.replace(conv, f'conv.{i}')
        names[f'backbone.{name}'] = weight
    assert 'backbone.layer7.0.conv.2.bn.bias' in names
    net = reallocated(MOBILE)
    reallocate(names, net)
    assert equal(outputs(net), outputs(before))


@pytest.mark.parametrize(
    'given, here, words',
    [
        (R18, R50, ['CRResNet', 'layer1.0.conv1.weight', '8 x 8 x 3 x 3', 'ResNet-18']),
        (R50, R18, ['CRResNet', 'layer1.0.conv1.weight', '8 x 32 x 1 x 1']),
        (X50, R50, ['layer1.0.conv2.weight', 'groups']),
        (MOBILE, R50, ['lacks', 'MobileNetV2']),
        (dict(R50, deep_stem=True), R50, ['lacks bn1', 'deep_stem']),
        (dict(R50, num_stages=3, strides=(1, 2, 2), dilations=(1, 1, 1),
              out_indices=(0, 1, 2)), R50, ['lacks layer4.0']),
        (dict(R50, base_channels=16), R50, ['[64, 128', '[32, 64', '2 times']),
        (R50, dict(R50, base_channels=4, supernet='operation'),
         ['2 times; base_channels', 'half width']),
        (dict(MOBILE, widen_factor=1.0), MOBILE, ['[16, 24, 32', 'widen_factor']),
    ],
)  # fmt: skip
def test_other_networks_are_refused(given, here, words):
    net = reallocated(here)
    before = snapshot(net)
    with pytest.raises(CheckpointError) as error:
        reallocate(source(given).state_dict(), net, 'this.pth')
    assert all(word in str(error.value) for word in ['this.pth', *words])
    assert equal(before, net.state_dict())


def test_ambiguous_and_foreign_weights_are_refused():
    net, state = reallocated(R18), source(R18).state_dict()
    fpn = dict(type='mmdet.FPN', in_channels=[8, 16], out_channels=8, num_outs=2)
    two = {f'{who}.backbone.{n}': w for who in ('student', 'teacher') for n, w in
           state.items()}  # fmt: skip
    with pytest.raises(CheckpointError, match="'student.backbone.'.*'teacher.backbone"):
        reallocate(two, net)
    report = reallocate(two, net, prefix='teacher.backbone.')
    assert report.ignored == dict(student=len(state))
    with pytest.raises(CheckpointError, match="prefix must .* but got 'backbone.'"):
        reallocate(two, net, prefix='backbone.')
    with pytest.raises(CheckpointError, match='no weight is named like'):
        reallocate({'stages.0.weight': torch.zeros(1)}, net)
    supernet = reallocated(R18, supernet='operation').state_dict()
    with pytest.raises(CheckpointError, match='supernet.*extract_subnet'):
        reallocate(supernet, net)
    with pytest.raises(UserError, match='CRResNet, not FPN.*init_cfg'):
        reallocate(state, MODELS.build(fpn))


@pytest.mark.parametrize(
    'content, words',
    [
        (None, 'there is no file'),
        (b'PK no zip', 'reading it fails'),
        (dict(epoch=3), 'must hold weights'),
        ([torch.zeros(1)], 'must hold weights'),
    ],
)
def test_unreadable_checkpoints_are_refused(tmp_path, content, words):
    path = tmp_path / 'weights.pth'
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(CheckpointError, match=words) as error:
        read_weights(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize('core', (b'numpy.core', b'numpy._core'))
def test_histories_are_read_as_weights_only(tmp_path, core):
    """What mmengine 0.10.7 asks of torch when it loads its own checkpoints."""
    path = tmp_path / 'epoch_1.pth'
    history = HistoryBuffer([1.5, 2.5], [1, 1])
    content = dict(loss=history, lr=np.float64(0.1), epoch=np.int64(1))
    torch.save(content, path, _use_new_zipfile_serialization=False)
    path.write_bytes(re.sub(rb'numpy\._?core', core, path.read_bytes()))
    with torch.serialization.safe_globals(history_globals()):
        found = torch.load(path, weights_only=True)
    assert found['loss'].statistics('mean') == 2 and found['loss'].current() == 2.5
    assert (found['lr'], found['epoch']) == (0.1, 1)


@pytest.mark.parametrize('args', [(HistoryBuffer, '__init__'), (torch.load, 'min')])
def test_nothing_but_histories_is_read(tmp_path, args):
    class Reference:
        def __reduce__(self):
            return getattr, args

    path = tmp_path / 'epoch_1.pth'
    torch.save(Reference(), path)
    allowed = [*history_globals(), torch.load]
    with (
        torch.serialization.safe_globals(allowed),
        pytest.raises(UnpicklingError, match=f'statistics of HistoryBuffer.*{args[1]}'),
    ):
        torch.load(path, weights_only=True)


def test_init_cfg(baseline, tmp_path):
    cfg, blocks = baseline, deeper(baseline)
    init = dict(type='mmcr.ReallocatedInit', checkpoint=save_classifier(tmp_path, cfg))
    net = reallocated(cfg, **blocks, init_cfg=init)
    net.init_weights()
    assert equal(outputs(net), outputs(source(cfg)))
    kaiming = [dict(type='Kaiming', layer='Conv2d'), init]
    net = reallocated(cfg, **blocks, init_cfg=kaiming)
    net.init_weights()
    assert equal(outputs(net), outputs(source(cfg)))
    for wrong in (kaiming[::-1], [init, dict(type='Pretrained', checkpoint='x')]):
        with pytest.raises(UserError, match='last initializer'):
            reallocated(cfg, init_cfg=wrong).init_weights()


def test_a_fresh_process_finds_mmcrs_types_by_their_scope(tmp_path):
    """In a config of mmdet's names alone, and a log says what came from where."""
    init = dict(type='mmcr.ReallocatedInit', checkpoint=save_classifier(tmp_path, R18))
    # mmengine's registries find mmcr's through mmdet's, its default scope in a Runner
    script = f"""
from mmdet.utils import register_all_modules
from mmengine.registry import HOOKS, LOOPS, METRICS, MODELS
register_all_modules()
for registry, kind in ((HOOKS, 'ArchSamplingHook'), (LOOPS, 'ArchSearchLoop'),
                       (METRICS, 'UnroundedCocoMetric'), (MODELS, 'CRResNet')):
    with registry.switch_scope_and_registry(None) as mmdets:
        assert mmdets.get(f'mmcr.{{kind}}') is not None, kind
net = MODELS.build(dict({R18}, type="ResNet", init_cfg={init}))
net.init_weights()
print(float(net.conv1.weight.sum()))
"""
    done = subprocess.run(
        [sys.executable, '-c', script], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    total = float(done.stdout.splitlines()[-1])
    assert total == pytest.approx(float(source(R18).conv1.weight.detach().sum()))
    assert 'checkpoint  here  copied' in done.stdout + done.stderr


@pytest.mark.parametrize(
    'backbone',
    [
        dict(stage_blocks=(1, 2, 3, 2), dilations=((1,), (1, 2), (1, 3, 1), (2, 1))),
        dict(
            supernet='stage', stage_choices={f'stage{i}': (1, 2) for i in range(1, 5)}
        ),
        dict(supernet='operation'),
    ],
    ids=['fixed', 'stage', 'operation'],
)
def test_detector_takes_the_backbone_that_mmpretrain_saved(backbone, tmp_path):
    """Pre-trained as it is, a backbone needs mmengine's own initializer alone."""
    trained = source(detector_cfg(backbone).backbone)
    path = str(tmp_path / 'classifier.pth')
    torch.save(mmpretrain_checkpoint(trained.state_dict()), path)
    init = dict(type='Pretrained', checkpoint=path, prefix='backbone.')
    detector = MODELS.build(detector_cfg(dict(backbone, init_cfg=init)))
    detector.init_weights()
    assert equal(detector.backbone.state_dict(), trained.state_dict())


def test_detector_starts_from_a_reallocated_classifier(tmp_path):
    cfg = dict(R18, norm_eval=False)
    init = dict(type='mmcr.ReallocatedInit', checkpoint=save_classifier(tmp_path, cfg))
    backbone = dict(stage_blocks=(2, 3, 2, 4), init_cfg=init)
    detector = in_mode(MODELS.build(detector_cfg(backbone)), False)
    detector.init_weights()
    assert equal(outputs(detector.backbone), outputs(source(cfg)))


def test_a_new_block_without_a_shortcut_starts_at_random():
    """In the last stage of CSP networks there is none."""
    cfg = dict(FAMILIES['cspnext'], type='mmdet.CSPNeXt')
    net = reallocated(cfg, stage_blocks=(1, 3, 2, 2))
    report = reallocate(source(cfg).state_dict(), net)
    assert report.random == ('stage4.2.blocks.1',)
    assert 'cannot, such as stage4.2.blocks.1' in str(report)
    ends = [net.get_submodule(f'{chain}.conv2.pointwise_conv.bn').weight for chain in
            ('stage2.1.blocks.2', 'stage4.2.blocks.1')]  # fmt: skip
    assert not ends[0].any() and (ends[1] == 1).all()
    supernet = reallocated(cfg, supernet='stage', share='prefix')
    assert net.shortcuts == supernet.shortcuts == (True, True, True, False)
