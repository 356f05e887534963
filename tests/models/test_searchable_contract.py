"""What the engine may expect of every searchable backbone, in every mode."""

import copy
import inspect
from math import ceil, floor

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.model import convert_sync_batchnorm
from mmengine.optim import OptimWrapper
from nets import (
    SUPERNETS,
    WITH_BATCH_NORMS,
    build,
    equal,
    fixed_of,
    images,
    in_mode,
    loss_of,
    on_path,
    snapshot,
    some_archs,
)
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmcr.errors import UserError
from mmcr.models import inherit_weights, path_state_dict
from mmcr.models.weights.checkpoint import CheckpointError
from mmcr.space import Arch, ArchError

pytestmark = pytest.mark.usefixtures('quiet_mmdet')


@pytest.fixture(params=SUPERNETS)
def cfg(request):
    return SUPERNETS[request.param]


@pytest.fixture(params=WITH_BATCH_NORMS)
def normed(request):
    return SUPERNETS[request.param]


def opposite_archs(space):
    """The architecture of all first values and that of all last values."""
    return [Arch({c.name: c.values[i] for c in space.choices}) for i in (0, -1)]


def test_space_and_active_architecture(cfg):
    net = build(cfg)
    assert net.space.size > 20
    assert net.arch in net.space
    for arch in some_archs(net.space):
        net.set_arch(arch)
        assert net.arch == arch
        assert list(net.arch) == [choice.name for choice in net.space.choices]


def test_other_architectures_are_refused(cfg):
    net = build(cfg)
    before = net.arch
    choice = net.space.choices[1]
    allowed = [choice.name, *map(str, choice.values)]
    incomplete = Arch({k: v for k, v in before.items() if k != choice.name})
    for bad, words in (
        (before.updated({choice.name: 99}), ['99', *allowed]),
        (incomplete, ['missing', *allowed]),
        (before.updated(dict(width=3)), ['width', choice.name]),
    ):
        fixed = MODELS.build(net.arch_cfg(before))
        for ask in (
            net.set_arch,
            net.arch_cfg,
            lambda a: path_state_dict(net, a),
            lambda a, fixed=fixed: inherit_weights(net, fixed, a),
        ):
            with pytest.raises(ArchError) as error:
                ask(bad)
            assert all(word in str(error.value) for word in words)
        assert net.arch == before


@pytest.mark.parametrize('training', (False, True), ids=('eval', 'train'))
def test_supernet_is_the_fixed_network_to_the_last_bit(cfg, training):
    net = in_mode(build(cfg), training)
    x = images()
    outputs = []
    for arch in some_archs(net.space):
        fixed = fixed_of(net, arch)
        assert type(fixed) is type(net) and fixed.space is None
        net.set_arch(arch)
        before = snapshot(net)
        outputs.append(net(x))
        assert equal(outputs[-1], fixed(x))
        # in training the batch norms of the path, and no others, have moved alike
        assert equal(path_state_dict(net, arch), fixed.state_dict())
        path = {value.data_ptr() for value in path_state_dict(net, arch).values()}
        state = net.state_dict().items()
        changed = [v for name, v in state if not torch.equal(v, before[name])]
        has_norms = any(isinstance(m, _BatchNorm) for m in net.modules())
        assert bool(changed) is (training and has_norms)
        assert path.issuperset(value.data_ptr() for value in changed)
    assert not equal(outputs[0], outputs[1])


def test_steps_compose_to_the_forward(cfg):
    net = in_mode(build(cfg), False)
    choices = [choice.name for choice in net.space.choices]
    x = images()
    for arch in some_archs(net.space, 2):
        net.set_arch(arch)
        y, outs = x, []
        for step in net.steps():
            y = step.run(y)
            promised = (step.channels, step.stride)
            assert (y.shape[1], x.shape[2] // y.shape[2]) == promised
            if step.is_output:
                outs.append(step.output(y))
                assert (outs[-1].shape[1], x.shape[2] // outs[-1].shape[2]) == promised
        assert equal(outs, net(x))
        assert [name for step in net.steps() for name in step.choices] == choices


def test_steps_know_the_norms_that_they_run(normed):
    net = build(normed)
    arch = some_archs(net.space, 1)[0]
    net.set_arch(arch)
    for norm in net.modules():
        if isinstance(norm, _BatchNorm):
            norm.reset_running_stats()
    x = images()
    for step in net.steps():
        known = set(net.active_norms(step))
        norms = (m for m in net.modules() if isinstance(m, _BatchNorm))
        before = {norm: int(norm.num_batches_tracked) for norm in norms}
        x = step.run(x)
        ran = {m for m, n in before.items() if int(m.num_batches_tracked) != n}
        assert ran == known and ran


def test_the_path_and_nothing_else_gets_gradients(cfg):
    net = build(cfg)
    for arch in some_archs(net.space):
        fixed = fixed_of(net, arch)
        net.set_arch(arch)
        net.zero_grad()
        loss_of(net(images())).backward()
        loss_of(fixed(images())).backward()

        got = {n for n, p in net.named_parameters() if p.grad is not None}
        assert got == on_path(net, arch)
        assert got < {name for name, _ in net.named_parameters()}
        active = net.active_parameters()
        assert {n for n, p in net.named_parameters() if p in {*active}} == got
        assert len(active) == len(got)  # each once, where convs share a weight too
        grads = {p.data_ptr(): p.grad for p in net.parameters()}
        path = path_state_dict(net, arch)
        for name, parameter in fixed.named_parameters():
            assert torch.equal(grads[path[name].data_ptr()], parameter.grad)
            assert parameter.grad.abs().sum() > 0


def test_optimizer_steps_leave_the_other_paths_alone(cfg):
    net = build(cfg)
    optimizer = OptimWrapper(
        torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    )
    # the second step meets the momentum that the first one left on the other path
    for arch in opposite_archs(net.space):
        net.set_arch(arch)
        before = snapshot(net)
        optimizer.update_params(loss_of(net(images())))
        after = net.state_dict()
        path = on_path(net, arch)
        assert len(path) < len(list(net.parameters()))
        for name, _ in net.named_parameters():
            assert torch.equal(before[name], after[name]) is (name not in path)


def test_outputs_have_the_promised_channels_and_strides(cfg):
    """Also where few strides divide the image: sizes are rounded up, or down."""
    side = 70  # even: the stem of CSPDarknet wants pairs of pixels
    rounds = floor if cfg['type'] == 'mmcr.CRConvNeXt' else ceil
    net = build(cfg)
    for arch in opposite_archs(net.space):
        net.set_arch(arch)
        fixed = fixed_of(net, arch)
        assert fixed.out_channels == net.out_channels
        assert fixed.out_strides == net.out_strides
        for each in (net, fixed):
            assert [tuple(out.shape) for out in each(images(side))] == [
                (2, channels, rounds(side / stride), rounds(side / stride))
                for channels, stride in zip(net.out_channels, net.out_strides)
            ]


def test_a_fixed_network_has_no_architectures(cfg):
    net = build(cfg)
    arch = net.arch
    fixed = in_mode(fixed_of(net, arch), False)
    words = f"fixed network. Build it with .*supernet='{cfg['supernet']}'"
    for ask in (lambda: fixed.set_arch(arch), lambda: fixed.arch_cfg(arch)):
        with pytest.raises(UserError, match=words):
            ask()
    with pytest.raises(AttributeError, match=words):
        _ = fixed.arch
    # which tools that look at all attributes take for what it is
    assert 'arch' not in dict(inspect.getmembers(fixed))
    traced = torch.jit.trace(fixed, images(), strict=False, check_trace=False)
    assert equal(traced(images()), fixed(images()))


def test_state_dict_round_trip(cfg):
    net, other = in_mode(build(cfg), False), in_mode(MODELS.build(cfg), False)
    assert not equal(net.state_dict(), other.state_dict())
    other.load_state_dict(net.state_dict(), strict=True)
    arch = some_archs(net.space, 1)[0]
    net.set_arch(arch), other.set_arch(arch)
    assert equal(net(images()), other(images()))
    # the active path is no part of the weights
    keys = list(net.state_dict())
    net.set_arch(opposite_archs(net.space)[1])
    assert list(net.state_dict()) == keys


def test_inherited_weights_are_copies(cfg):
    net = build(cfg)
    fixed = fixed_of(net, some_archs(net.space, 1)[0])
    before = snapshot(net)
    with torch.no_grad():
        for value in fixed.state_dict().values():
            value.add_(1)
    assert equal(net.state_dict(), before)


def test_inheriting_into_another_network_is_refused(cfg):
    net = build(cfg)
    arch = some_archs(net.space, 1)[0]
    others = [MODELS.build(net.arch_cfg(a)) for a in opposite_archs(net.space)]
    described = list(fixed_of(net, arch).state_dict())
    wrong = [other for other in others if list(other.state_dict()) != described]
    assert wrong or cfg['supernet'] == 'operation'
    for other in [*wrong, MODELS.build(dict(type='mmdet.ResNet', depth=34))]:
        with pytest.raises(UserError, match='every key accounted for'):
            inherit_weights(net, other, arch)


def test_arch_cfg_is_the_callers_to_change(cfg):
    net = build(cfg, norm_cfg=dict(type='BN', eps=1e-3))
    arch = net.arch
    net.arch_cfg(arch)['norm_cfg']['eps'] = 7
    assert net.arch_cfg(arch)['norm_cfg'] == dict(type='BN', eps=1e-3)
    norms = (m for m in fixed_of(net, arch).modules() if isinstance(m, _BatchNorm))
    assert {norm.eps for norm in norms} == {1e-3}


def test_deepcopy(cfg):
    net = in_mode(build(cfg), False)
    first, last = opposite_archs(net.space)
    net.set_arch(first)
    twin = copy.deepcopy(net)
    twin.set_arch(last)
    assert net.arch == first and twin.arch == last
    net.set_arch(last)
    assert equal(twin(images()), net(images()))
    own = {p.data_ptr() for p in net.parameters()}
    assert own.isdisjoint(p.data_ptr() for p in twin.parameters())
    assert len(list(twin.parameters())) == len(list(net.parameters()))


def test_sync_batch_norm_conversion(cfg):
    net = in_mode(build(cfg), False)
    arch = some_archs(net.space, 1)[0]
    net.set_arch(arch)
    outs = net(images())
    keys = list(net.state_dict())
    net = in_mode(convert_sync_batchnorm(net, 'torch'), False)
    assert list(net.state_dict()) == keys
    assert not any(isinstance(m, nn.BatchNorm2d) for m in net.modules())
    assert equal(net(images()), outs)
    net.set_arch(opposite_archs(net.space)[1])
    assert all(
        isinstance(norm, nn.SyncBatchNorm)
        for step in net.steps()
        for norm in net.active_norms(step)
    )
    net.set_arch(arch)
    assert equal(net(images()), fixed_of(net, arch)(images()))
    net.train()
    fixed = fixed_of(net, arch)
    assert equal(net(images()), fixed(images()))


def test_fixed_network_forgets_where_the_supernet_came_from(cfg):
    net = build(cfg, init_cfg=dict(type='Pretrained', checkpoint='supernet.pth'))
    assert 'init_cfg' not in net.arch_cfg(net.arch)


def test_weights_of_other_names_alone_are_refused(cfg, tmp_path):
    weights = build(cfg).state_dict()
    detector = {f'backbone.{name}': weight for name, weight in weights.items()}
    with pytest.raises(CheckpointError, match=r"prefix='backbone\.'"):
        build(cfg).load_state_dict(detector, strict=False)
    file = tmp_path / 'detector.pth'
    torch.save(dict(state_dict=detector), file)
    forgotten = dict(type='Pretrained', checkpoint=str(file))
    if cfg['type'] != 'mmcr.CRSwin':  # mmdet's Swin finds that prefix by itself
        with pytest.raises(CheckpointError, match=r"prefix='backbone\.'"):
            build(dict(cfg, init_cfg=forgotten)).init_weights()
    net = build(dict(cfg, init_cfg=dict(forgotten, prefix='backbone.')))
    net.init_weights()
    assert equal(net.state_dict(), weights)
    with pytest.raises(CheckpointError, match='Its own begin with'):
        net.load_state_dict(dict(classifier=torch.ones(1)), strict=False)
