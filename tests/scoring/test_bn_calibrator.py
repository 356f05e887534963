from types import SimpleNamespace

import pytest
import torch
from mmcv.ops import sync_bn
from mmengine.model import convert_sync_batchnorm
from nets import (
    SUPERNETS,
    WITH_BATCH_NORMS,
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

from mmcr.models import path_state_dict
from mmcr.scoring.bn_calibrator import BNCalibrator
from mmcr.scoring.paths import run_paths

pytestmark = pytest.mark.usefixtures('quiet_mmdet')

EQUAL = [images(64, 2, seed=seed) for seed in range(3)]
UNEQUAL = [images(64, 3, seed=7), images(64, 1, seed=8), images(96, 2, seed=9)]


@pytest.fixture(params=WITH_BATCH_NORMS)
def supernet(request):
    return build(SUPERNETS[request.param])


def norms_of(net):
    return [module for module in net.modules() if isinstance(module, _BatchNorm)]


def calibrate(calibrator, archs, batches):
    missing = calibrator.missing(archs, len(batches))
    todo = [(j, dict(inputs=batches[j])) for j in missing]
    calibrator.calibrate(archs, todo, len(batches))


def calibrated_paths(supernet, archs, batches, x=None, calibrator=None):
    """Per architecture, its statistics and its outputs on `x`."""
    calibrator = calibrator or BNCalibrator(supernet)
    calibrate(calibrator, archs, batches)
    supernet.eval()
    found = [None] * len(archs)
    for members, outs in run_paths(
        supernet, archs, images() if x is None else x, calibrator.run_calibrated
    ):
        state = path_state_dict(supernet, archs[members[0]])
        statistics = {k: v.clone() for k, v in state.items() if '.running_' in k}
        for member in members:
            found[member] = outs, statistics
    return found


def same(found, other):
    """Whether outputs and statistics of all paths are the same bits."""
    return len(found) == len(other) and all(
        equal(a, b) for one, two in zip(found, other) for a, b in zip(one, two)
    )


def cumulative(fixed, batches):
    """torch's own cumulative average, from scratch but for frozen norms."""
    in_mode(fixed, True)
    for norm in norms_of(fixed):
        if norm.training:
            norm.reset_running_stats()
            norm.momentum = None
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


def test_nothing_of_the_supernets_statistics_is_left(supernet):
    archs = some_archs(supernet.space, 3)
    first = calibrated_paths(supernet, archs, EQUAL)
    for norm in norms_of(supernet):
        norm.running_mean.fill_(torch.nan)
        norm.running_var.fill_(torch.inf)
    assert same(calibrated_paths(supernet, archs, EQUAL), first)


def test_a_shared_beginning_is_measured_once_per_batch():
    supernet = build(SUPERNETS['r18-stage'])
    calls = []
    supernet.bn1.register_forward_hook(lambda *_: calls.append(1))
    calibrate(BNCalibrator(supernet), some_archs(supernet.space, 5), EQUAL)
    assert len(calls) == len(EQUAL)


def test_a_known_prefix_sees_no_batch_twice(supernet):
    archs = some_archs(supernet.space, 4)
    calibrator = BNCalibrator(supernet)
    assert calibrator.missing(archs, 3) == range(3)
    calibrated_paths(supernet, archs[:2], UNEQUAL, calibrator=calibrator)
    assert list(calibrator.missing(archs[:2], 3)) == []
    later = calibrated_paths(supernet, archs, UNEQUAL, calibrator=calibrator)
    assert same(later, calibrated_paths(supernet, archs, UNEQUAL))


def test_a_calibration_goes_on_and_back(supernet):
    archs = some_archs(supernet.space, 4)
    calibrator = BNCalibrator(supernet)
    for count, missing in ((1, range(1)), (3, range(1, 3)), (2, range(2))):
        assert calibrator.missing(archs, count) == missing
        batches = UNEQUAL[:count]
        found = calibrated_paths(supernet, archs, batches, calibrator=calibrator)
        assert same(found, calibrated_paths(supernet, archs, batches))


def test_a_calibration_that_was_cut_off_leaves_nothing(supernet):
    archs = some_archs(supernet.space, 2)
    calibrator = BNCalibrator(supernet)
    calibrate(calibrator, archs, UNEQUAL[:1])

    def cut_off():
        yield 1, dict(inputs=UNEQUAL[1])
        raise OSError

    with pytest.raises(OSError):
        calibrator.calibrate(archs, cut_off(), 3)
    assert calibrator.missing(archs, 3) == range(3)
    found = calibrated_paths(supernet, archs, UNEQUAL, calibrator=calibrator)
    assert same(found, calibrated_paths(supernet, archs, UNEQUAL))


def test_unused_prefixes_are_forgotten_when_they_take_too_much():
    supernet = build(SUPERNETS['r18-stage'])
    first, other = some_archs(supernet.space, 2)
    for limit, missing in ((2**28, range(0)), (0, range(1))):
        calibrator = BNCalibrator(supernet, keep_bytes=limit)
        calibrate(calibrator, [first], EQUAL[:1])
        calibrate(calibrator, [other], EQUAL[:1])
        assert len(calibrator.missing([first], 1)) == len(missing)


@pytest.mark.parametrize('name', ['r18-stage', 'r50-operation'])
def test_norm_eval_keeps_the_stored_statistics(name):
    supernet = build(SUPERNETS[name], norm_eval=True)
    before = snapshot(supernet)
    arch = some_archs(supernet.space, 1)[0]
    calibrator = BNCalibrator(supernet)
    assert not calibrator.needed
    supernet.eval()
    ((_, outs),) = run_paths(supernet, [arch], images(), calibrator.run_calibrated)
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
        cumulative(fixed, EQUAL)
        expected = dict(fixed.named_buffers())
        for key, value in statistics.items():
            torch.testing.assert_close(value, expected[key])
            frozen = key.startswith(('bn1.', 'layer1.', 'layer2.'))
            assert not frozen or torch.equal(value, stored[key])
    for key, value in supernet.state_dict().items():
        if key.startswith(('bn1.', 'layer1.', 'layer2.')):
            assert torch.equal(value, before[key])


def test_mmcvs_synchronised_norms_are_batch_norms(monkeypatch):
    # without a process group, which it asks for, and without a GPU, which it needs
    group = SimpleNamespace(WORLD=None)
    alone = SimpleNamespace(group=group, get_world_size=lambda group: 1)
    monkeypatch.setattr(sync_bn, 'dist', alone)
    plain = build(SUPERNETS['r18-stage'])
    archs = some_archs(plain.space, 2)
    expected = calibrated_paths(plain, archs, EQUAL)
    supernet = convert_sync_batchnorm(build(SUPERNETS['r18-stage']), 'mmcv')
    assert isinstance(supernet.bn1, sync_bn.SyncBatchNorm)
    assert same(calibrated_paths(supernet, archs, EQUAL), expected)
    assert 'forward' not in vars(supernet.bn1)


@pytest.mark.parametrize(
    'name, more',
    [('r18-stage', dict(norm_cfg=dict(type='GN', num_groups=2))), ('swin-stage', {})],
)
def test_other_norms_have_nothing_to_calibrate(name, more):
    supernet = build(SUPERNETS[name], **more)
    calibrator = BNCalibrator(supernet)
    assert not calibrator.needed
    archs, before = some_archs(supernet.space, 2), snapshot(supernet)
    assert calibrator.missing(archs, 3) == range(0)
    found = calibrated_paths(supernet, archs, EQUAL, calibrator=calibrator)
    for arch, (outs, statistics) in zip(archs, found):
        assert not statistics
        assert equal(outs, fixed_of(supernet, arch)(images()))
    assert equal(supernet.state_dict(), before)


def test_a_path_that_was_not_calibrated_is_an_error():
    supernet = build(SUPERNETS['r18-stage'])
    first, other = some_archs(supernet.space, 2)
    calibrator = BNCalibrator(supernet)
    calibrate(calibrator, [first], EQUAL)
    supernet.eval()
    with pytest.raises(KeyError):
        list(run_paths(supernet, [other], images(), calibrator.run_calibrated))
