"""A small detector, its batches and its training, alone or in many processes."""

import torch
from mmengine.model import BaseModel, MMDistributedDataParallel
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from nets import SUPERNETS, build, images, in_mode, some_archs
from torch import distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmcr.models.detector import find_backbone

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
        # of another type than the others: alone in its bucket
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
    """The batch of a rank; with a `world` of None those of so many ranks, joined."""
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
        options: `name`, `training`, `convert`, `with_cp`, `frozen_stages` of the
            model, the others of the optimizer wrapper.
    """
    own = {'name', 'training', 'with_cp', 'frozen_stages'} & options.keys()
    convert = options.pop('convert', lambda model: model)
    model = convert(Detector(**{key: options.pop(key) for key in own})).to(dtype)
    model.rare.data = model.rare.data.double()
    archs = some_archs(model.backbone.space, 3)
    wrapped, found = wrap(model), []
    optimizer = torch.optim.SGD(
        model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1
    )

    def note(*_):
        grads = {name: p.grad for name, p in model.named_parameters()}
        found.append({n: grad.clone() for n, grad in grads.items() if grad is not None})

    optimizer.register_step_pre_hook(note)
    wrapper = wrapper(optimizer=optimizer, **options)
    wrapper.initialize_count_status(wrapped, 0, STEPS)
    for step in range(STEPS):
        find_backbone(wrapped).set_arch(archs[step % 3])
        losses = wrapped.train_step(batches(step, dtype), wrapper)
        assert set(losses) >= {'loss', 'loss_maps'}
    return found, model.state_dict()


def plain(model):
    return MMDistributedDataParallel(
        model, find_unused_parameters=True, broadcast_buffers=False
    )


def bytes_of(event):
    """What a collective is given; none other of gloo is taken for nothing."""
    if not event.name.startswith('gloo:'):
        return 0
    size = {'gloo:all_reduce': 4, 'gloo:all_gather': 8}[event.name]  # float32, int64
    return size * torch.Size(event.input_shapes[0]).numel()
