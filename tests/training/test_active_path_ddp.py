"""Processes that exchange the active path train what one process trains."""

import json
from contextlib import nullcontext
from functools import partial

import pytest
import torch
from ddp import (
    NETS,
    CPUAmp,
    Detector,
    Encoded,
    Reentrant,
    averaged,
    bytes_of,
    data,
    gradients,
    loss_at,
    message,
    plain,
    small_buckets,
    synchronised,
    trained,
)
from mmengine.dist import all_gather_object
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper
from mmengine.registry import MODEL_WRAPPERS
from nets import equal, on_path, some_archs
from pairs import one_of, run_pair
from torch import nn
from torch.profiler import profile

from mmcr.errors import UserError
from mmcr.models.detector import find_backbone
from mmcr.training import ActivePathDDP

pytestmark = pytest.mark.usefixtures('quiet_mmdet')

TOLERANCE = 1e-9  # of the largest gradient, in float64
SECONDS = 240  # a hang ends here
PROCESSES = 2, pytest.param(4, marks=pytest.mark.slow)


CASES = dict(
    {name: dict(name=name) for name in NETS},
    accumulated=dict(accumulative_counts=3),
    clipped=dict(clip_grad=dict(max_norm=0.01)),
    synchronised=dict(training=True, convert=synchronised),
    checkpointed=dict(with_cp=True),
)
OF_DDP = dict(
    amp=dict(wrapper=CPUAmp, clip_grad=dict(max_norm=0.01), accumulative_counts=2),
    norms=dict(training=True, name='r18-prefix-stage'),
)


def same_as_ddp(rank, world):
    """Which cases give the bits that DDP gives."""
    batches = partial(data, rank, world)
    found = {}
    for name, case in OF_DDP.items():
        runs = [
            trained(wrap, batches, dtype=torch.float32, **case)
            for wrap in (small_buckets, plain)
        ]
        (ours, weights), (theirs, expected) = runs
        found[name] = equal(weights, expected) and all(
            a.keys() == b.keys()
            and all(
                b[key] is None if a[key] is None else torch.equal(a[key], b[key])
                for key in a
            )
            for a, b in zip(ours, theirs, strict=True)
        )
    return found


def exchanged(rank, world):
    """Bytes of two steps, of their active parameters and of the whole model."""
    found = []
    for name in ('r50-stage', 'mobilenetv2-operation'):
        model = Detector(name).float()
        wrapped = ActivePathDDP(model)
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
    return message(lambda: wrapped.train_step(data(rank, world, 0), wrapper))


def other_models(rank):
    """What ranks say of which one freezes, rounds or builds more than the others."""

    def frozen():
        model = Detector()
        model.backbone.conv1.weight.requires_grad_(rank != 1)
        return model

    def rounded():
        return Detector().to(torch.float32 if rank == 1 else torch.float64)

    models = frozen(), rounded(), Detector(NETS[rank == 1])
    return [message(partial(ActivePathDDP, model)) for model in models]


def by_hand(rank, world, wrap):
    """Gradients of a loop of one's own: some held back, then two exchanges."""
    model = Detector()
    wrapped = wrap(model)

    def backward(step):
        loss_at(wrapped, step, rank, world).backward()

    with wrapped.no_sync():
        backward(0)
        backward(1)
    norms = all_gather_object(gradients(model)['backbone.conv1.weight'].norm().item())
    assert len(set(norms)) == world  # nothing is exchanged yet
    backward(2)
    backward(1)
    return gradients(model)


def two_paths(rank, world):
    """Whether one backward pass through two of them exchanges both."""

    def loss(wrapped):
        held = getattr(wrapped, 'no_sync', nullcontext)
        with held():
            first = loss_at(wrapped, 0, rank, world)
        return first / 3 + loss_at(wrapped, 1, rank, world)

    return averaged(Detector, loss, world)


def one_storage(rank, world):
    """Whether gradients stay apart that begin in one storage, by size of buckets."""
    return [
        averaged(make, partial(loss_at, step=0, rank=rank, world=world), world, **size)
        for make in (Encoded, lambda: Encoded().to(memory_format=torch.channels_last))
        for size in (dict(bucket_cap_mb=1e-9), {})
    ]


def after_failure(rank, world):
    """Whether a backward pass that breaks off leaves the next ones alone."""
    found = []
    for fails in (False, True):
        model = Detector()
        wrapped = ActivePathDDP(model)
        if fails:
            loss = loss_at(wrapped, 0, rank, world)
            hook = model.backbone.conv1.weight.register_hook(lambda grad: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                loss.backward()
            hook.remove()
            model.zero_grad()
        loss_at(wrapped, 1, rank, world).backward()
        found.append(gradients(model))
    return all(torch.allclose(found[0][key], found[1][key]) for key in found[0])


def work(world, rank, root, folder):
    """All that a process does."""
    with one_of(world, rank, folder):
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
            paths=other_paths(rank, world),
            models=other_models(rank),
            by_hand=equal(
                *(by_hand(rank, world, wrap) for wrap in (ActivePathDDP, plain))
            ),
            two_paths=two_paths(rank, world),
            one_storage=one_storage(rank, world),
            after_failure=after_failure(rank, world),
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
    _, trainings = group
    world = len(trainings)
    expected, weights = trained(
        lambda model: model, partial(data, world, None), **CASES[case]
    )
    trainings = [training[case] for training in trainings]
    for found, _ in trainings:
        assert len(found) == len(expected)
        for got, wanted in zip(found, expected):
            largest = max(g.abs().max() for g in wanted.values() if g is not None)
            for name, gradient in wanted.items():
                if gradient is None:
                    assert got[name] is None, name
                else:
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
        assert one['by_hand']


def test_two_paths_in_one_backward_pass(group):
    found, _ = group
    assert all(one['two_paths'] for one in found)


def test_gradients_of_one_storage_stay_apart(group):
    found, _ = group
    for one in found:
        assert one['one_storage'] == [True] * 4


def test_the_active_path_alone_is_exchanged(group):
    found, _ = group
    for one in found:
        for sent, active, whole in one['exchanged']:
            assert active <= sent <= 1.02 * active < whole


def test_a_failure_leaves_nothing(group):
    found, _ = group
    assert all(one['after_failure'] for one in found)


def test_other_paths_and_other_models_are_named(group):
    found, _ = group
    last = len(found) - 1
    first, second = some_archs(Detector().backbone.space, 2)
    others = ', '.join(map(str, range(last)))
    for one in found:
        assert one['paths'].startswith(
            f'All ranks must train the same path, but got {first} on rank {others}; '
            f'{second} on rank {last}. '
        )
        for said in one['models']:
            assert said.startswith('All ranks must have the same model, but got ')
            assert 'on rank 1. ' in said


def test_a_gradient_that_is_not_whole_is_refused():
    loss = loss_at(ActivePathDDP(Reentrant()), 0, 0, 1)
    assert 'but head.0 got it twice' in message(loss.backward)


@pytest.mark.parametrize('held', [False, True])
def test_a_parameter_that_no_path_lists_is_named(held):
    model = Detector()
    wrapped = ActivePathDDP(model)
    listed = model.backbone.active_parameters
    model.backbone.active_parameters = lambda: [
        p for p in listed() if p is not model.backbone.conv1.weight
    ]
    with wrapped.no_sync() if held else nullcontext():
        said = message(loss_at(wrapped, 0, 0, 1).backward)
    assert 'active_parameters()' in said
    assert 'backbone.conv1.weight got one and is not' in said


def test_some_paths_leave_the_shared_weight_out():
    """So that other tests mean something."""
    model = Detector()
    active = []
    for arch in some_archs(model.backbone.space, 3):
        model.backbone.set_arch(arch)
        active.append(model.shared in set(model.backbone.active_parameters()))
    assert not all(active)


def test_is_a_wrapper_as_any_other():
    model = Detector()
    wrapped = ActivePathDDP(model)
    assert list(wrapped.state_dict()) == [f'module.{key}' for key in model.state_dict()]
    assert is_model_wrapper(wrapped)
    assert MODEL_WRAPPERS.get('mmcr.ActivePathDDP') is ActivePathDDP
    assert find_backbone(wrapped) is model.backbone
    assert wrapped.train().module.backbone.training


def test_needs_a_supernet():
    model = Detector()
    model.backbone = nn.Identity()
    with pytest.raises(UserError, match='must be a supernet'):
        ActivePathDDP(model)
