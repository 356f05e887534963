"""Processes that exchange the active path train what one process trains."""

import json
import warnings
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from ddp import NETS, CPUAmp, Detector, bytes_of, data, plain, synchronised, trained
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper
from nets import equal, on_path, some_archs
from pairs import one_of, run_pair
from torch import nn
from torch.profiler import profile

from mmcr.errors import UserError
from mmcr.models.detector import find_backbone
from mmcr.training import ActivePathDDP, InPlaceDistillationHook, active_path_ddp

pytestmark = pytest.mark.usefixtures('quiet_mmdet')

TOLERANCE = 1e-9  # of the largest gradient, in float64
SECONDS = 240  # a hang ends here
SMALL = dict(bucket_cap_mb=2**-4)  # MiB, so that some buckets are not on a path
PROCESSES = 2, pytest.param(4, marks=pytest.mark.slow)


def taught(model):
    """With the largest path as a teacher."""
    InPlaceDistillationHook().before_train(SimpleNamespace(model=model))
    return model


CASES = dict(
    {name: dict(name=name) for name in NETS},
    accumulated=dict(accumulative_counts=3),
    clipped=dict(clip_grad=dict(max_norm=0.01)),
    synchronised=dict(training=True, convert=synchronised),
    checkpointed=dict(with_cp=True, frozen_stages=1),
)
OF_DDP = dict(
    amp=dict(wrapper=CPUAmp, clip_grad=dict(max_norm=0.01), accumulative_counts=2),
    norms=dict(training=True, name='r18-prefix-stage'),
    taught=dict(training=True, convert=taught, accumulative_counts=2),
)


def small_buckets(model):
    return ActivePathDDP(model, device_ids=[0], **SMALL)


def same_as_ddp(rank, world):
    """Which cases give the bits that DDP gives."""
    batches = partial(data, rank, world)
    found = {}
    for name, case in OF_DDP.items():
        (ours, weights), (theirs, expected) = (
            trained(wrap, batches, dtype=torch.float32, **case)
            for wrap in (small_buckets, plain)
        )
        same = [equal(a, b) for a, b in zip(ours, theirs, strict=True)]
        found[name] = equal(weights, expected) and all(same)
    return found


def exchanged(rank, world):
    """Bytes of two steps, of their active parameters and of the whole model."""
    found = []
    for name in ('r50-stage', 'mobilenetv2-operation'):
        model = Detector(name).float()
        wrapped = ActivePathDDP(model, bucket_cap_mb=1e-6)  # a parameter in each
        wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1))
        active = 0
        with profile(record_shapes=True) as profiler:
            for step, arch in enumerate(some_archs(model.backbone.space, 2)):
                model.backbone.set_arch(arch)
                wrapped.train_step(data(rank, world, step), wrapper)
                path = {f'backbone.{name}' for name in on_path(model.backbone, arch)}
                others = {model.unused, *model.head}
                active += sum(
                    p.nbytes
                    for name, p in model.named_parameters()
                    if name in path or p in others
                )
        sent = sum(bytes_of(event) for event in profiler.events())
        found.append((sent, active, 2 * sum(p.nbytes for p in model.parameters())))
    return found


def other_paths(rank, world):
    """What ranks say of which the last one has another path."""
    model = Detector()
    wrapped = ActivePathDDP(model)
    archs = some_archs(model.backbone.space, 2)
    model.backbone.set_arch(archs[rank == world - 1])
    wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1))
    with pytest.raises(UserError) as raised:
        wrapped.train_step(data(rank, world, 0), wrapper)
    return str(raised.value)


def of_older_torch():
    """What is warned of where torch cannot skip, and where it can."""
    found = []
    for option in ('unheard_of', active_path_ddp.SKIPS):
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(active_path_ddp, 'SKIPS', option)
            with warnings.catch_warnings(record=True) as caught:
                ActivePathDDP(Detector())
        found.append([str(each.message) for each in caught])
    return found


def work(world, rank, root, folder):
    """All that a process does."""
    with one_of(world, rank, folder):
        model = Detector()
        wrapped = ActivePathDDP(model)
        assert list(wrapped.state_dict()) == [f'module.{k}' for k in model.state_dict()]
        assert is_model_wrapper(wrapped) and find_backbone(wrapped) is model.backbone
        batches = partial(data, rank, world)
        torch.save(
            {
                name: trained(small_buckets, batches, **case)
                for name, case in CASES.items()
            },
            folder / f'{rank}.pth',
        )
        found = dict(
            same_as_ddp=same_as_ddp(rank, world) if world == 2 else {},
            exchanged=exchanged(rank, world),
            warned=of_older_torch(),
            paths=other_paths(rank, world),
        )
        (folder / f'{rank}.json').write_text(json.dumps(found))


@pytest.fixture(scope='module', params=PROCESSES)
def group(request, tmp_path_factory):
    """What each of so many processes found, and their trainings."""
    folder = tmp_path_factory.mktemp('group')
    world = request.param
    found = run_pair(partial(work, world), None, folder, SECONDS, world, __name__)
    return found, [torch.load(folder / f'{rank}.pth') for rank in range(world)]


@pytest.mark.parametrize('case', CASES)
def test_trains_as_one_process_on_the_joined_batch(group, case):
    """A parameter that no rank uses has no gradient: no decay, no momentum."""
    _, trainings = group
    world = len(trainings)
    expected, weights = trained(
        lambda model: model, partial(data, world, None), **CASES[case]
    )
    trainings = [training[case] for training in trainings]
    for found, _ in trainings:
        for got, wanted in zip(found, expected, strict=True):
            assert got.keys() == wanted.keys()
            largest = max(gradient.abs().max() for gradient in wanted.values())
            for name, gradient in wanted.items():
                error = (got[name] - gradient).abs().max()
                assert error <= TOLERANCE * largest, name
    for _, state in trainings:
        assert equal(state, trainings[0][1])
    assert not equal(weights, Detector(CASES[case].get('name', NETS[0])).state_dict())


def test_bits_are_those_of_ddp(group):
    found, _ = group
    if len(found) > 2:
        pytest.skip('more than two numbers are added up in another order')
    for one in found:
        assert one['same_as_ddp'] == dict.fromkeys(OF_DDP, True)


def test_the_path_alone_is_exchanged(group):
    found, _ = group
    for one in found:
        for sent, active, whole in one['exchanged']:
            assert active <= sent <= 1.02 * active < whole


def test_other_paths_are_named(group):
    found, _ = group
    last = len(found) - 1
    first, second = some_archs(Detector().backbone.space, 2)
    others = ', '.join(map(str, range(last)))
    for one in found:
        assert one['paths'].startswith(
            f'All ranks must train the same path, but got {first} on rank {others}; '
            f'{second} on rank {last}. '
        )


def test_an_older_torch_exchanges_the_whole_supernet(group):
    found, _ = group
    for one in found:
        (text,), none = one['warned']
        assert 'has no unheard_of' in text and none == []


def test_some_paths_leave_the_shared_weight_out():
    """So that other tests mean something."""
    model = Detector()
    active = []
    for arch in some_archs(model.backbone.space, 3):
        model.backbone.set_arch(arch)
        active.append(model.shared in set(model.backbone.active_parameters()))
    assert not all(active)


def test_needs_a_supernet():
    model = Detector()
    model.backbone = nn.Identity()
    with pytest.raises(UserError, match='must be a supernet'):
        ActivePathDDP(model)
