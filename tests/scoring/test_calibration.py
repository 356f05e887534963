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

from mmcr.models import path_state_dict
from mmcr.scoring import fusing
from mmcr.scoring.calibration import PathNorms
from mmcr.scoring.fusing import ConvNormPairs
from mmcr.scoring.paths import run_paths

pytestmark = pytest.mark.usefixtures('quiet_mmdet')

EQUAL = [images(64, 2, seed=seed) for seed in range(3)]
UNEQUAL = [images(64, 3, seed=7), images(64, 1, seed=8), images(96, 2, seed=9)]


@pytest.fixture(params=SUPERNETS)
def supernet(request):
    return build(SUPERNETS[request.param])


def norms_of(net):
    return [module for module in net.modules() if isinstance(module, _BatchNorm)]


def calibrate(norms, archs, batches):
    missing = norms.missing(archs, len(batches))
    todo = [(j, dict(inputs=batches[j])) for j in missing]
    norms.calibrate(archs, todo, len(batches))


def calibrated_paths(supernet, archs, batches, x=None, norms=None):
    """Per architecture, its statistics and its outputs on `x`."""
    norms = norms or PathNorms(supernet, fold=False)
    calibrate(norms, archs, batches)
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
    calibrate(PathNorms(supernet), some_archs(supernet.space, 5), EQUAL)
    assert len(calls) == len(EQUAL)


def test_folded_norms_compute_the_same(supernet):
    archs = some_archs(supernet.space, 4)
    x = images(96, seed=20)
    plain = calibrated_paths(supernet, archs, EQUAL, x)
    folded = calibrated_paths(supernet, archs, EQUAL, x, PathNorms(supernet, fold=True))
    for (outs, _), (expected, _) in zip(folded, plain):
        for out, other in zip(outs, expected):
            torch.testing.assert_close(out, other, rtol=1e-3, atol=1e-3)
    assert not any('forward' in vars(module) for module in supernet.modules())


def test_every_norm_of_the_families_is_folded(supernet):
    norms = PathNorms(supernet, fold=True)
    archs = some_archs(supernet.space, 4)
    calibrate(norms, archs, EQUAL[:1])
    supernet.eval()
    for norm in norms_of(supernet):
        norm.running_var.fill_(torch.nan)
    for _, outs in run_paths(supernet, archs, images(), norms.run_calibrated):
        assert all(out.isfinite().all() for out in outs)


def test_a_known_prefix_sees_no_batch_twice(supernet):
    archs = some_archs(supernet.space, 4)
    norms = PathNorms(supernet, fold=False)
    assert norms.missing(archs, 3) == range(3)
    calibrated_paths(supernet, archs[:2], UNEQUAL, norms=norms)
    assert list(norms.missing(archs[:2], 3)) == []
    later = calibrated_paths(supernet, archs, UNEQUAL, norms=norms)
    once = calibrated_paths(supernet, archs, UNEQUAL)
    for (outs, statistics), (other_outs, others) in zip(later, once):
        assert equal(outs, other_outs) and equal(statistics, others)


def test_a_calibration_goes_on_and_back(supernet):
    archs = some_archs(supernet.space, 4)
    norms = PathNorms(supernet, fold=False)
    for count, missing in ((1, range(1)), (3, range(1, 3)), (2, range(2))):
        assert norms.missing(archs, count) == missing
        found = calibrated_paths(supernet, archs, UNEQUAL[:count], norms=norms)
        anew = calibrated_paths(supernet, archs, UNEQUAL[:count])
        for (outs, statistics), (other_outs, others) in zip(found, anew):
            assert equal(outs, other_outs) and equal(statistics, others)


def test_a_calibration_that_was_cut_off_leaves_nothing(supernet):
    archs = some_archs(supernet.space, 2)
    norms = PathNorms(supernet, fold=False)
    calibrate(norms, archs, UNEQUAL[:1])

    def cut_off():
        yield 1, dict(inputs=UNEQUAL[1])
        raise OSError

    with pytest.raises(OSError):
        norms.calibrate(archs, cut_off(), 3)
    assert norms.missing(archs, 3) == range(3)
    found = calibrated_paths(supernet, archs, UNEQUAL, norms=norms)
    for (_, statistics), (_, others) in zip(
        found, calibrated_paths(supernet, archs, UNEQUAL)
    ):
        assert equal(statistics, others)


def test_a_rank_without_a_batch_folds_the_same_norms(monkeypatch):
    supernet = build(SUPERNETS['r18-stage'])
    norms = norms_of(supernet)
    busy, idle = (ConvNormPairs(supernet.modules(), norms) for _ in range(2))
    noted = []
    monkeypatch.setattr(
        fusing, 'all_gather_object', lambda own: noted.append(own) or noted
    )
    with busy.watched():
        supernet(images())
    busy.agree()
    assert busy.of(norms) and not idle.of(norms)
    idle.agree()
    assert idle.of(norms) == busy.of(norms)


def test_unused_prefixes_are_forgotten_when_they_take_too_much():
    supernet = build(SUPERNETS['r18-stage'])
    first, other = some_archs(supernet.space, 2)
    for limit, missing in ((2**28, range(0)), (0, range(1))):
        norms = PathNorms(supernet, keep_bytes=limit)
        calibrate(norms, [first], EQUAL[:1])
        calibrate(norms, [other], EQUAL[:1])
        assert len(norms.missing([first], 1)) == len(missing)


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
    calibrate(norms, [first], EQUAL)
    supernet.eval()
    with pytest.raises(KeyError):
        list(run_paths(supernet, [other], images(), norms.run_calibrated))
