"""Processes that exchange the active path train what one process trains."""

import json
import os
from functools import partial

import pytest
import torch
from mmengine.dist import all_gather_object
from mmengine.logging import MMLogger
from mmengine.model import BaseModel, MMDistributedDataParallel, is_model_wrapper
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.registry import MODEL_WRAPPERS, init_default_scope
from nets import SUPERNETS, build, equal, images, in_mode, on_path, some_archs
from pairs import run_pair
from torch import distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.profiler import profile
from torch.utils.checkpoint import checkpoint

from mmcr.cli import leave_process_group
from mmcr.engine import ActivePathDDP
from mmcr.engine.paths import find_backbone
from mmcr.errors import UserError

pytestmark = pytest.mark.usefixtures('quiet_mmdet')

NETS = ['r50-stage', 'r18-prefix-stage', 'mobilenetv2-operation-shared']
PER_RANK, STEPS = 2, 4
TOLERANCE = 1e-9  # of the largest gradient, in float64
SECONDS = 240  # a hang ends here
PROCESSES = 2, pytest.param(4, marks=pytest.mark.slow)


class Detector(BaseModel):
    """A backbone with two heads: one that not every batch needs, one of no use."""

    def __init__(self, name=NETS[0], training=False, **more):
        super().__init__()
        self.unused = nn.Parameter(torch.ones(3))
        self.backbone = build(SUPERNETS[name], **more)
        # after it, so that a rank without this gradient exchanges the others later
        rare = nn.Parameter(torch.tensor([0.3, 0.7], dtype=torch.float64))
        self.head = nn.ParameterList([rare])
        in_mode(self, training)

    @property
    def rare(self):
        return self.head[0]

    def forward(self, inputs, rare, mode):
        outs = self.backbone(inputs)
        losses = dict(
            loss_maps=[out.square().mean() for out in outs], count=outs[0].detach()
        )
        if rare.any():
            size = outs[-1].flatten(1).mean(1) * rare
            losses['loss_rare'] = (self.rare.prod() * size.double()).mean()
        return losses


class Sum(torch.autograd.Function):
    """Over the ranks, forward and backward."""

    @staticmethod
    def forward(ctx, x):
        distributed.all_reduce(x := x.clone())
        return x

    backward = forward


class Synchronised(_BatchNorm):
    """Norms over the batches of all ranks; torch's own need a GPU."""

    def _check_input_dim(self, x):
        pass

    def forward(self, x):
        world = distributed.get_world_size() if distributed.is_initialized() else 1
        moments = torch.stack([x.mean((0, 2, 3)), x.square().mean((0, 2, 3))]) / world
        mean, square = Sum.apply(moments) if world > 1 else moments
        scale = self.weight / (square - mean.square() + self.eps).sqrt()
        shift = self.bias - mean * scale
        return x * scale[:, None, None] + shift[:, None, None]


def synchronised(module):
    """With all norms replaced."""
    for name, child in module.named_children():
        if isinstance(child, _BatchNorm):
            # with an eps of 1e-5 rounding errors grow from step to step
            norm = Synchronised(child.num_features, eps=0.1)
            norm.load_state_dict(child.state_dict())
            setattr(module, name, norm)
        else:
            synchronised(child)
    return module


class CPUAmp(AmpOptimWrapper):
    """Mixed precision with a loss scale, on the device that mmengine refuses."""

    def __init__(self, **kwargs):
        OptimWrapper.__init__(self, **kwargs)
        self.loss_scaler = torch.amp.GradScaler('cpu', init_scale=2.0**10)
        self.cast_dtype, self._scale_update_param = None, None


def data(rank, world, step, dtype=torch.float32):
    """The batch of a rank; that of rank 0 of 1 joins those of `joined` ranks."""
    inputs = images(32, count=4 * PER_RANK, seed=step).to(dtype)
    rare = torch.zeros(4 * PER_RANK, dtype=dtype)
    rare[0] = 2.0 * (step != 1)  # rank 0 alone has any, and at one step nobody
    mine = slice(rank * PER_RANK, (rank + 1) * PER_RANK)
    if world is None:
        mine = slice(0, rank * PER_RANK)
    return dict(inputs=inputs[mine], rare=rare[mine])


def trained(wrap, batches, wrapper=OptimWrapper, dtype=torch.float64, **options):
    """Gradients at every update, and the weights at the end.

    Args:
        wrap: What wraps the model.
        batches: Makes that of a step.
        wrapper: The kind of optimizer wrapper.
        dtype: Of the weights.
        options: `name`, `training`, `convert`, `with_cp` of the model, the others
            of the optimizer wrapper.
    """
    convert = options.pop('convert', lambda model: model)
    of_model = {
        key: options.pop(key)
        for key in ('name', 'training', 'with_cp')
        if key in options
    }
    model = convert(Detector(**of_model)).to(dtype)
    model.rare.data = model.rare.data.double()
    archs = some_archs(model.backbone.space, 3)
    wrapped, found = wrap(model), []
    optimizer = torch.optim.SGD(
        model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1
    )

    def note(*_):
        found.append(
            {
                name: None if p.grad is None else p.grad.clone()
                for name, p in model.named_parameters()
            }
        )

    optimizer.register_step_pre_hook(note)
    wrapper = wrapper(optimizer=optimizer, **options)
    wrapper.initialize_count_status(wrapped, 0, STEPS)
    for step in range(STEPS):
        find_backbone(wrapped).set_arch(archs[step % 3])
        losses = wrapped.train_step(batches(step, dtype), wrapper)
        assert set(losses) >= {'loss', 'loss_maps'}
    return found, model.state_dict()


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


def small_buckets(model):
    """Of several parameters, and some parameters alone."""
    return ActivePathDDP(model, bucket_cap_mb=2**-6)


def plain(model):
    return MMDistributedDataParallel(
        model, find_unused_parameters=True, broadcast_buffers=False
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
    for name in ('r50-stage', 'r18-prefix-stage', 'mobilenetv2-operation'):
        model = Detector(name).float()
        wrapped = ActivePathDDP(model)
        wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1))
        active = 0
        with profile(record_shapes=True) as profiler:
            for step, arch in enumerate(some_archs(model.backbone.space, 2)):
                model.backbone.set_arch(arch)
                wrapped.train_step(data(rank, world, step), wrapper)
                path = on_path(model.backbone, arch)
                active += sum(
                    p.nbytes
                    for name, p in model.named_parameters()
                    if not name.startswith('backbone.')
                    or name.removeprefix('backbone.') in path
                )
        sent = sum(bytes_of(event) for event in profiler.events())
        found.append((sent, active, 2 * sum(p.nbytes for p in model.parameters())))
    return found


def bytes_of(event):
    """What a collective is given; none other of gloo is taken for nothing."""
    if not event.name.startswith('gloo:'):
        return 0
    size = {'gloo:all_reduce': 4, 'gloo:all_gather': 8}[event.name]  # float32, int64
    return size * torch.Size(event.input_shapes[0]).numel()


def started_alike(rank):
    """Whether ranks agree after wrapping, and with rank 0 before."""
    model = Detector()
    with torch.no_grad():
        for tensor in [*model.parameters(), *model.buffers()]:
            tensor += rank
    ActivePathDDP(model)
    return equal(model.state_dict(), Detector().state_dict())


def message(run):
    try:
        run()
    except UserError as error:
        return str(error)


def other_paths(rank, world):
    """What ranks say of which the last one has another path."""
    model = Detector()
    wrapped = ActivePathDDP(model)
    archs = some_archs(model.backbone.space, 2)
    model.backbone.set_arch(archs[rank == world - 1])
    wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1))
    return message(lambda: wrapped.train_step(data(rank, world, 0), wrapper))


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


def loss_at(wrapped, step, rank, world):
    """That of the batch of a step, on a path of its own."""
    backbone = find_backbone(wrapped)
    backbone.set_arch(some_archs(backbone.space, 3)[step])
    return sum(wrapped(**data(rank, world, step), mode='loss')['loss_maps'])


def two_paths(rank, world):
    """Whether one backward pass through two of them exchanges both."""
    models = Detector(), Detector()
    for wrapped in (ActivePathDDP(models[0]), models[1]):
        losses = [loss_at(wrapped, step, rank, world) for step in (0, 1)]
        (losses[0] / 3 + losses[1]).backward()
    found, own = map(gradients, models)
    for gradient in own.values():
        distributed.all_reduce(gradient)
    return found.keys() == own.keys() and all(
        torch.allclose(found[key], own[key] / world, rtol=1e-4, atol=1e-6)
        for key in own
    )


def gradients(model):
    return {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


class Reentrant(Detector):
    """Two parts of its backward pass are passes of their own."""

    def forward(self, inputs, rare, mode):
        def part(x):
            return x * self.rare.sum()

        inputs = inputs.requires_grad_()
        parts = [checkpoint(part, inputs, use_reentrant=True) for _ in range(2)]
        return dict(loss_maps=[x.mean() for x in parts])


def twice(rank, world):
    return message(loss_at(ActivePathDDP(Reentrant()), 0, rank, world).backward)


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
    torch.set_num_threads(1)
    os.environ['LOCAL_RANK'] = str(rank)
    MMLogger.get_instance('quiet', log_level='ERROR')
    init_default_scope('mmdet')
    distributed.init_process_group(
        'gloo', init_method=f'file://{folder}/store', rank=rank, world_size=world
    )
    batches = partial(data, rank, world)
    torch.save(
        {name: trained(small_buckets, batches, **case) for name, case in CASES.items()},
        folder / f'{rank}.pth',
    )
    found = dict(
        same_as_ddp=same_as_ddp(rank, world) if world == 2 else {},
        exchanged=exchanged(rank, world),
        alike=started_alike(rank),
        paths=other_paths(rank, world),
        models=message(lambda: ActivePathDDP(Detector(NETS[rank == 1]))),
        by_hand=equal(*(by_hand(rank, world, wrap) for wrap in (ActivePathDDP, plain))),
        two_paths=two_paths(rank, world),
        twice=twice(rank, world),
        after_failure=after_failure(rank, world),
    )
    (folder / f'{rank}.json').write_text(json.dumps(found))
    distributed.barrier()
    leave_process_group()


@pytest.fixture(scope='module', params=PROCESSES)
def group(request, tmp_path_factory):
    """What each of so many processes found, and their trainings."""
    folder = tmp_path_factory.mktemp('group')
    world = request.param
    found = run_pair(partial(work, world), None, folder, SECONDS, world)
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
        for gradients, wanted in zip(found, expected):
            largest = max(g.abs().max() for g in wanted.values() if g is not None)
            for name, gradient in wanted.items():
                if gradient is None:
                    assert gradients[name] is None, name
                else:
                    error = (gradients[name] - gradient).abs().max()
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


def test_a_gradient_that_is_not_whole_is_not_exchanged(group):
    found, _ = group
    for one in found:
        assert 'one of shape (2,) got it twice' in one['twice']


def test_the_active_path_alone_is_exchanged(group):
    found, _ = group
    for one in found:
        for sent, active, whole in one['exchanged']:
            assert active <= sent <= 1.02 * active < whole


def test_ranks_start_alike_and_a_failure_leaves_nothing(group):
    found, _ = group
    assert all(one['alike'] and one['after_failure'] for one in found)


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
        assert one['models'].startswith('All ranks must have the same model, but got ')
        assert 'on rank 1. ' in one['models']


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
