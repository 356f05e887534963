"""A small detector, its batches and its training, alone or in many processes."""

import torch
from mmengine.model import BaseModel, MMDistributedDataParallel
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from nets import SUPERNETS, build, images, in_mode, some_archs
from torch import distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from mmcr.errors import UserError
from mmcr.models.detector import find_backbone
from mmcr.training import ActivePathDDP

NETS = ['r50-stage', 'r18-prefix-stage', 'mobilenetv2-operation-shared']
PER_RANK, STEPS = 2, 4


class Detector(BaseModel):
    """A backbone and a head: some parameters are rarely or never of use, one is shared.

    The last one of the backbone is the head's too, on whatever path.
    """

    def __init__(self, name=NETS[0], training=False, **more):
        super().__init__()
        self.unused = nn.Parameter(torch.ones(3))
        self.backbone = build(SUPERNETS[name], **more)
        # after it, so that a rank without this gradient exchanges the others later
        rare = nn.Parameter(torch.tensor([0.3, 0.7], dtype=torch.float64))
        self.head = nn.ParameterList([rare, [*self.backbone.parameters()][-1]])
        in_mode(self, training)

    @property
    def rare(self):
        return self.head[0]

    @property
    def shared(self):
        return self.head[1]

    def forward(self, inputs, rare, mode):
        outs = self.backbone(inputs)
        losses = dict(
            loss_maps=[out.square().mean() for out in outs],
            loss_shared=self.shared.square().mean() * inputs.mean(),
            count=outs[0].detach(),
        )
        if rare.any():
            size = outs[-1].flatten(1).mean(1) * rare
            losses['loss_rare'] = (self.rare.prod() * size.double()).mean()
        return losses


class Encoded(Detector):
    """Gradients that autograd puts where other tensors have theirs."""

    def __init__(self):
        super().__init__(NETS[1])
        self.encoding = nn.Parameter(torch.zeros(64, 5))
        self.left = nn.Parameter(torch.ones(2, 3))
        self.right = nn.Parameter(torch.ones(3, 2))

    def forward(self, inputs, rare, mode):
        x = self.backbone(inputs[:1])[-1].flatten(2).expand(-1, -1, 5) * 1.0
        x = x + self.encoding[None]  # whose gradient is a view of that of x
        both = self.right.view(-1)
        if rare.any():
            both = both + self.left.view(-1)
        return dict(
            loss_maps=[
                (x * torch.linspace(1, 2, 5)).sum(),
                x.square().mean(),
                (both * torch.linspace(1, 2, 6)).sum() * inputs.mean(),
            ]
        )


class Reentrant(Detector):
    """Two parts of its backward pass are passes of their own."""

    def forward(self, inputs, rare, mode):
        def part(x):
            return x * self.rare.sum()

        inputs = inputs.requires_grad_()
        parts = [checkpoint(part, inputs, use_reentrant=True) for _ in range(2)]
        return dict(loss_maps=[x.mean() for x in parts])


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
    """With all norms replaced; their weights stay, for whoever shares them."""
    for name, child in module.named_children():
        if isinstance(child, _BatchNorm):
            # with an eps of 1e-5 rounding errors grow from step to step
            norm = Synchronised(child.num_features, eps=0.1)
            norm.load_state_dict(child.state_dict())
            norm.weight, norm.bias = child.weight, child.bias
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


def loss_at(wrapped, step, rank, world):
    """That of the batch of a step, on a path of its own."""
    backbone = find_backbone(wrapped)
    backbone.set_arch(some_archs(backbone.space, 3)[step])
    return sum(wrapped(**data(rank, world, step), mode='loss')['loss_maps'])


def gradients(model):
    return {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


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


def small_buckets(model):
    """Of several parameters, and some parameters alone."""
    return ActivePathDDP(model, bucket_cap_mb=2**-4)


def plain(model):
    return MMDistributedDataParallel(
        model, find_unused_parameters=True, broadcast_buffers=False
    )


def averaged(make, loss, world, **options):
    """Whether a model gets the mean gradients of the ranks, and their layout."""
    models = make(), make()
    for wrapped in (ActivePathDDP(models[0], **options), models[1]):
        loss(wrapped).backward()
    found, own = (
        [torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()]
        for model in models
    )
    kind, alike = dict(memory_format=torch.channels_last), True
    for gradient, parameter in zip(found, models[0].parameters()):
        if gradient.is_contiguous() != parameter.is_contiguous() or (
            gradient.dim() == 4
            and gradient.is_contiguous(**kind) != parameter.is_contiguous(**kind)
        ):
            alike = False
    found, own = (torch.cat([g.flatten() for g in those]) for those in (found, own))
    distributed.all_reduce(own)
    return alike and torch.allclose(found, own / world, rtol=1e-4, atol=1e-6)


def bytes_of(event):
    """What a collective is given; none other of gloo is taken for nothing."""
    if not event.name.startswith('gloo:'):
        return 0
    size = {'gloo:all_reduce': 4, 'gloo:all_gather': 8}[event.name]  # float32, int64
    return size * torch.Size(event.input_shapes[0]).numel()


def message(run):
    try:
        run()
    except UserError as error:
        return str(error)
