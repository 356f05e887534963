import pytest
import torch
from nets import (
    SUPERNETS,
    build,
    calibrate_alone,
    equal,
    fixed_of,
    images,
    in_mode,
    snapshot,
    some_archs,
)
from torch.nn.modules.batchnorm import _BatchNorm

from mmcr.engine.calibration import PathNorms
from mmcr.engine.paths import run_paths
from mmcr.models import path_state_dict

pytestmark = pytest.mark.usefixtures('quiet_mmdet')

EQUAL = [images(64, 2, seed=seed) for seed in range(3)]
UNEQUAL = [images(64, 3, seed=7), images(64, 1, seed=8), images(96, 2, seed=9)]


@pytest.fixture(params=SUPERNETS)
def supernet(request):
    return build(SUPERNETS[request.param])


def norms_of(net):
    return [module for module in net.modules() if isinstance(module, _BatchNorm)]


def calibrated_paths(supernet, archs, batches, x=None):
    """Per architecture, its statistics and its outputs on `x`."""
    norms = PathNorms(supernet)
    norms.calibrate(archs, batches)
    supernet.eval()
    found = [None] * len(archs)
    for members, outs in run_paths(
        supernet, archs, images() if x is None else x, norms.run_calibrated
    ):
        state = path_state_dict(supernet, archs[members[0]])
        for member in members:
            found[member] = (
                outs,
                {
                    key: value.clone()
                    for key, value in state.items()
                    if key.endswith(('running_mean', 'running_var'))
                },
            )
    return found


def cumulative(fixed, batches):
    """torch's own cumulative average, from scratch."""
    for norm in norms_of(fixed):
        norm.reset_running_stats()
        norm.momentum = None
    in_mode(fixed, True)
    with torch.no_grad():
        for batch in batches:
            fixed(batch)


def test_statistics_of_each_path_are_those_of_its_network_alone(supernet):
    archs = some_archs(supernet.space, 4)
    for arch, (_, statistics) in zip(archs, calibrated_paths(supernet, archs, EQUAL)):
        fixed = fixed_of(supernet, arch)
        cumulative(fixed, EQUAL)
        expected = dict(fixed.named_buffers())
        assert len(statistics) == 2 * len(norms_of(fixed))
        for key, value in statistics.items():
            torch.testing.assert_close(value, expected[key])


def test_every_image_counts_the_same(supernet):
    archs = some_archs(supernet.space, 3)
    x = images(96, seed=20)
    for arch, (outs, statistics) in zip(
        archs, calibrated_paths(supernet, archs, UNEQUAL, x)
    ):
        fixed = fixed_of(supernet, arch)
        calibrate_alone(fixed, UNEQUAL)
        expected = dict(fixed.named_buffers())
        assert all(torch.equal(v, expected[k]) for k, v in statistics.items())
        assert equal(outs, fixed(x))


def test_batches_of_unequal_size_are_not_just_averaged():
    supernet = build(SUPERNETS['r18-stage'])
    ((_, weighted),) = calibrated_paths(supernet, [supernet.arch], UNEQUAL)
    fixed = fixed_of(supernet, supernet.arch)
    cumulative(fixed, UNEQUAL)
    assert not torch.allclose(weighted['bn1.running_mean'], fixed.bn1.running_mean)


def test_nothing_of_the_supernets_statistics_is_left(supernet):
    archs = some_archs(supernet.space, 3)
    first = calibrated_paths(supernet, archs, EQUAL)
    for norm in norms_of(supernet):
        norm.running_mean.fill_(torch.nan)
        norm.running_var.fill_(torch.inf)
    again = calibrated_paths(supernet, archs, EQUAL)
    assert all(equal(a[0], b[0]) and equal(a[1], b[1]) for a, b in zip(first, again))


def test_together_or_alone(supernet):
    archs = some_archs(supernet.space, 4)
    together = calibrated_paths(supernet, archs, UNEQUAL)
    for arch, found in zip(archs, together):
        (alone,) = calibrated_paths(supernet, [arch], UNEQUAL)
        assert equal(alone[0], found[0]) and equal(alone[1], found[1])


def test_a_shared_beginning_is_measured_once_per_batch():
    supernet = build(SUPERNETS['r18-stage'])
    calls = []
    supernet.bn1.register_forward_hook(lambda *_: calls.append(1))
    PathNorms(supernet).calibrate(some_archs(supernet.space, 5), EQUAL)
    assert len(calls) == len(EQUAL)


@pytest.mark.parametrize('name', ['r18-stage', 'r50-operation'])
def test_norm_eval_keeps_the_stored_statistics(name):
    supernet = build(SUPERNETS[name], norm_eval=True)
    before = snapshot(supernet)
    arch = some_archs(supernet.space, 1)[0]
    norms = PathNorms(supernet)
    assert not norms.needed
    supernet.eval()
    ((_, outs),) = run_paths(supernet, [arch], images(), norms.run_calibrated)
    assert equal(supernet.state_dict(), before)
    supernet.set_arch(arch)
    assert equal(outs, supernet(images()))


@pytest.mark.parametrize('name', ['r18-stage', 'r50-operation'])
def test_frozen_norms_keep_the_stored_statistics(name):
    supernet = build(SUPERNETS[name], frozen_stages=2)
    archs = some_archs(supernet.space, 2)
    before = snapshot(supernet)
    for arch, (_, statistics) in zip(archs, calibrated_paths(supernet, archs, EQUAL)):
        fixed = fixed_of(supernet, arch)
        stored = path_state_dict(supernet, arch)
        cumulative_but_frozen(fixed)
        expected = dict(fixed.named_buffers())
        for key, value in statistics.items():
            torch.testing.assert_close(value, expected[key])
            frozen = key.startswith(('bn1.', 'layer1.', 'layer2.'))
            assert not frozen or torch.equal(value, stored[key])
    for key, value in supernet.state_dict().items():
        if key.startswith(('bn1.', 'layer1.', 'layer2.')):
            assert torch.equal(value, before[key])


def cumulative_but_frozen(fixed):
    in_mode(fixed, True)
    with torch.no_grad():
        for norm in norms_of(fixed):
            if norm.training:
                norm.reset_running_stats()
                norm.momentum = None
        for batch in EQUAL:
            fixed(batch)


def test_group_norm_has_nothing_to_calibrate():
    supernet = build(SUPERNETS['r18-stage'], norm_cfg=dict(type='GN', num_groups=2))
    assert not PathNorms(supernet).needed


def test_a_path_that_was_not_calibrated_is_an_error():
    supernet = build(SUPERNETS['r18-stage'])
    first, other = some_archs(supernet.space, 2)
    norms = PathNorms(supernet)
    norms.calibrate([first], EQUAL)
    supernet.eval()
    with pytest.raises(KeyError):
        list(run_paths(supernet, [other], images(), norms.run_calibrated))
