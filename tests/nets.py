"""Small helpers for tests that compare networks."""

import random

import torch
from mmdet.registry import MODELS
from mmengine.model import BaseModule
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmcr.models import inherit_weights, path_state_dict
from mmcr.models.backbones.convnext import MISSING

FEW = dict(stage1=(1, 3), stage2=(2, 1), stage3=(1, 2, 3), stage4=(1, 2))
FEW_OF_FIVE = dict(
    stage1=(1, 2), stage2=(2, 1), stage3=(1, 2, 3), stage4=(1, 2), stage5=(2, 1)
)
BLOCKS, BLOCKS_OF_FIVE = (1, 2, 1, 2), (1, 2, 1, 1, 2)
RESNET = dict(type='mmcr.CRResNet', base_channels=8, norm_eval=False)
RESNEXT = dict(RESNET, type='mmcr.CRResNeXt', depth=50, groups=2, base_width=4)
RES2NET = dict(RESNET, type='mmcr.CRRes2Net', depth=50, scales=3, base_width=4)
MOBILENETV2 = dict(type='mmcr.CRMobileNetV2', widen_factor=0.25)
REGNET = dict(  # widths 8, 16, 32, 64
    type='mmcr.CRRegNet',
    arch=dict(w0=8, wa=10, wm=2.0, depth=7, group_w=8, bot_mul=1.0),
    norm_eval=False,
)
CSP = dict(widen_factor=0.125, deepen_factor=0.33)
SWIN = dict(  # no stage is as large as whole windows
    type='mmcr.CRSwin',
    embed_dims=8,
    depths=(3, 2, 2, 2),
    num_heads=(1, 2, 2, 4),
    window_size=3,
    mlp_ratio=2,
    drop_path_rate=0.0,  # no draws, which would tell equal networks apart
)
CONVNEXT = dict(
    type='mmcr.CRConvNeXt',
    arch=dict(depths=(2, 2, 3, 1), channels=(8, 16, 32, 64)),
    out_indices=(0, 1, 2, 3),
    gap_before_final_norm=False,
    layer_scale_init_value=1.0,
)
DETNAS = dict(type='mmcr.DetNASNet', stem_channels=4, stage_channels=(8, 16, 32, 64))

# Add a backbone of mmdet's here, and all contract suites run on it.
FAMILIES = {
    'r18': dict(RESNET, depth=18),
    'r50': dict(RESNET, depth=50),
    'r50d': dict(RESNET, type='mmcr.CRResNetV1d', depth=50),
    'res2net': RES2NET,
    'x50': RESNEXT,
    'regnet': REGNET,
    'mobilenetv2': MOBILENETV2,
    'cspdarknet': dict(CSP, type='mmcr.CRCSPDarknet'),
    'cspnext': dict(CSP, type='mmcr.CRCSPNeXt'),
    'swin': SWIN,
}
if not MISSING:
    FAMILIES['convnext'] = CONVNEXT
NO_DILATIONS = ('swin',)
NO_BATCH_NORMS = ('swin', 'convnext')

# The arguments of a found network that is built wider than its supernet here.
WIDER = {
    'mmcr.CRResNet': dict(base_channels=16),
    'mmcr.CRResNetV1d': dict(base_channels=16),
    'mmcr.CRRes2Net': dict(base_channels=16),
    'mmcr.CRResNeXt': dict(base_channels=16),
    'mmcr.CRRegNet': dict(arch=dict(REGNET['arch'], w0=16, wa=20)),
    'mmcr.CRMobileNetV2': dict(widen_factor=0.5),
    'mmcr.CRCSPDarknet': dict(widen_factor=0.25),
    'mmcr.CRCSPNeXt': dict(widen_factor=0.25),
    'mmcr.CRSwin': dict(embed_dims=16),
    'mmcr.CRConvNeXt': dict(widen_factor=2.0),
    'mmcr.DetNASNet': dict(stage_channels=(8, 20, 36, 64)),
}


def modes_of(family: str) -> dict[str, dict]:
    """A small supernet of each mode."""
    five = family == 'mobilenetv2'
    stage = dict(supernet='stage', stage_choices=FEW_OF_FIVE if five else FEW)
    blocks = BLOCKS_OF_FIVE if five else BLOCKS
    modes = {
        'stage': stage,
        'prefix-stage': dict(stage, share='prefix'),
        'operation': dict(supernet='operation', stage_blocks=blocks),
    }
    if family in ('r50', 'res2net', 'mobilenetv2'):
        modes['operation-shared'] = dict(
            modes['operation'], share_dilation_weights=True
        )
    if family in NO_DILATIONS:
        del modes['operation']
    return {mode: dict(FAMILIES[family], **options) for mode, options in modes.items()}


SUPERNETS = {
    **{f'{f}-{mode}': cfg for f in FAMILIES for mode, cfg in modes_of(f).items()},
    'detnas-block': dict(DETNAS, supernet='block', stage_blocks=BLOCKS),
}
WITH_BATCH_NORMS = [n for n in SUPERNETS if n.split('-')[0] not in NO_BATCH_NORMS]


def mmdets(cfg: dict) -> dict:
    """mmdet's own backbone."""
    package = 'mmpretrain.' if cfg['type'] == 'mmcr.CRConvNeXt' else 'mmdet.'
    theirs = cfg['type'].replace('mmcr.CR', package)
    return dict(cfg, type=theirs.replace('mmdet.Swin', 'mmdet.SwinTransformer'))


def randomised(net: nn.Module, seed: int = 0) -> nn.Module:
    """Gives every norm weights and statistics of its own, so that none is neutral.

    Likewise every table of what positions in a window say.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for norm in net.modules():
            if hasattr(norm, 'relative_position_bias_table'):
                norm.relative_position_bias_table.normal_(generator=generator)
            if isinstance(norm, (_BatchNorm, nn.GroupNorm, nn.LayerNorm)):
                norm.weight.uniform_(0.5, 1.5, generator=generator)
                norm.bias.normal_(0, 0.2, generator=generator)
            if isinstance(norm, _BatchNorm):
                norm.running_mean.normal_(0, 0.2, generator=generator)
                norm.running_var.uniform_(0.5, 1.5, generator=generator)
    return net


def in_mode(net: nn.Module, training: bool) -> nn.Module:
    """`net.train(training)`, which returns nothing for mmdet's backbones."""
    net.train(training)
    return net


def images(size: int = 64, count: int = 2, channels: int = 3, seed: int = 0):
    return torch.randn(
        count, channels, size, size, generator=torch.Generator().manual_seed(seed)
    )


def equal(a, b) -> bool:
    """Whether two state dicts or sequences of tensors agree to the last bit."""
    if isinstance(a, dict):
        return list(a) == list(b) and equal(a.values(), b.values())
    a, b = list(a), list(b)
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b))


def snapshot(net: nn.Module) -> dict:
    return {key: value.clone() for key, value in net.state_dict().items()}


def last_norms(net: BaseModule) -> list[nn.Module]:
    """The norm before the addition of every block, one per option."""
    found = []
    for block in net.modules():
        last = getattr(block, 'norm3', getattr(block, 'norm2', None))
        if last is not None:
            found += [m for m in last.modules() if isinstance(m, _BatchNorm)]
    return found


def build(cfg, **more):
    torch.manual_seed(0)
    return randomised(MODELS.build({**cfg, **more}))


def fixed_of(supernet, arch):
    """The network of `arch` with the supernet's weights, in the supernet's mode."""
    fixed = MODELS.build(supernet.arch_cfg(arch))
    inherit_weights(supernet, fixed, arch)
    return in_mode(fixed, supernet.training)


def check_paths(net, x) -> None:
    """Two paths: the fixed network's outputs, promised channels, same steps."""
    for arch in some_archs(net.space, 2):
        net.train()  # also freezes what mmdet's options freeze
        fixed = fixed_of(net, arch)
        net.set_arch(arch)
        outs = net(x)
        assert equal(outs, fixed(x))
        assert tuple(out.shape[1] for out in outs) == net.out_channels
        y, stepped = x, []
        net.eval()
        for step in net.steps():
            y = step.run(y)
            if step.is_output:
                stepped.append(step.output(y))
        assert equal(stepped, net(x))


def some_archs(space, count=3, seed=0):
    """Distinct architectures, drawn at random."""
    rng, archs = random.Random(seed), {}
    while len(archs) < count:
        archs[space.sample(rng)] = None
    return list(archs)


def loss_of(outs):
    return sum(out.square().mean() for out in outs)


def on_path(supernet, arch):
    """Names of the supernet's parameters that the path uses."""
    used = {value.data_ptr() for value in path_state_dict(supernet, arch).values()}
    return {name for name, p in supernet.named_parameters() if p.data_ptr() in used}


def calibrate_alone(fixed: nn.Module, batches: list[torch.Tensor]) -> None:
    """Sets the norms to what each batch gives alone, averaged over the images.

    In float64, so that a calibration that does the same agrees to the last bit.
    """
    fixed.train()
    sums = {}
    for batch in batches:
        for norm in fixed.modules():
            if isinstance(norm, _BatchNorm):
                norm.momentum = 1.0
        with torch.no_grad():
            fixed(batch)
        for key, value in fixed.named_buffers():
            sums[key] = sums.get(key, 0) + value.double() * len(batch)
    count = sum(map(len, batches))
    for key, buffer in fixed.named_buffers():
        if 'running' in key:
            buffer.copy_(sums[key] / count)
    fixed.eval()


def counted(net, shape, channels=3):
    """Multiply-accumulates of all layers with weights that a forward runs, by hooks.

    With those of attention, in which each of the tokens of a window meets each twice.
    """
    macs = 0

    def count(layer, inputs, output):
        nonlocal macs
        if hasattr(layer, 'relative_position_bias_table'):
            macs += 2 * inputs[0].numel() * inputs[0].shape[1]
        else:
            macs += output.numel() * layer.weight[0].numel()

    for module in net.modules():
        is_attention = hasattr(module, 'relative_position_bias_table')
        if is_attention or isinstance(module, (nn.Conv2d, nn.Linear)):
            module.register_forward_hook(count)
    with torch.no_grad():
        net.eval()
        net(torch.zeros(1, channels, *shape))
    return macs
