"""Weights of a classifier or a detector for one whose blocks were reallocated.

Few users can pre-train a found architecture, but every baseline has public
weights, and its user a trained detector. Block j of a stage takes the weights of
the source's block j; a block beyond the source's depth starts as the identity, or at
random where it has no shortcut (the last stage of CSPDarknet and CSPNeXt). Where no
stage lost blocks or got random ones and all dilations are 1, the backbone computes what
the source does.
"""

import re
from collections import Counter
from collections.abc import Mapping

from mmcv.cnn import is_norm
from mmengine.logging import print_log
from mmengine.model import KaimingInit, TruncNormalInit, update_init_info
from torch import Tensor, nn

from mmcr.errors import UserError
from mmcr.models.weights.checkpoint import (
    CheckpointError,
    read_weights,
    unwrapped_names,
)
from mmcr.models.weights.compatibility import NEEDLESS
from mmcr.models.weights.names import OPTION, backbone_weights
from mmcr.models.weights.report import ChainReport, WeightReport
from mmcr.registry import WEIGHT_INITIALIZERS

# of a chain of blocks: a stage or a branch of it, inside layers of CSP networks
CHAIN = r'layer\d+|stage\d+\.\d+\.blocks|stages\.\d+(?:\.blocks)?'
BLOCK = re.compile(rf'(({CHAIN})(?:\.options\.\w+)?)\.(\d+)\.')
# what old and plain networks lack; the offsets of a deformable conv start at zero
MAY_LACK = (*NEEDLESS, 'conv_offset.weight', 'conv_offset.bias')
# of a Swin Transformer or ConvNeXt that is no classifier; it starts neutral
OUTPUT_NORM = re.compile(r'norm\d\.')


@WEIGHT_INITIALIZERS.register_module()
class ReallocatedInit:
    """Starts a backbone or a detector from a checkpoint of its baseline (`reallocate`).

    In a backbone's config: ``init_cfg=dict(type='mmcr.ReallocatedInit',
    checkpoint='torchvision://resnet50')``; in a list of initializers the last one. As
    the ``init_cfg`` of a whole detector it starts neck and heads as well
    (`reallocate_detector`).

    Args:
        checkpoint: As in `read_weights`.
        prefix: As in `backbone_weights`.
        map_location: Device of the weights while they are read.
    """

    def __init__(
        self, checkpoint: str, prefix: str | None = None, map_location: str = 'cpu'
    ) -> None:
        self.checkpoint = checkpoint
        self.prefix = prefix
        self.map_location = map_location

    def __call__(self, module: nn.Module) -> None:
        in_init_weights = hasattr(module, '_params_init_info')
        if in_init_weights:
            self._check_order(module)
            _initialize_children(module)
        weights = read_weights(self.checkpoint, self.map_location)
        start = reallocate_detector if hasattr(module, 'backbone') else reallocate
        report = start(weights, module, self.checkpoint, self.prefix)
        print_log(str(report), logger='current')
        if in_init_weights:
            update_init_info(module, f'{type(self).__name__}: {self.checkpoint}')

    def _check_order(self, module: nn.Module) -> None:
        cfgs = module.init_cfg
        types = [
            cfg.get('type', '') for cfg in ([cfgs] if isinstance(cfgs, dict) else cfgs)
        ]
        names = [kind if isinstance(kind, str) else kind.__name__ for kind in types]
        if not names[-1].endswith(type(self).__name__) or any(
            name.startswith('Pretrained') for name in names
        ):
            raise UserError(
                f'{type(self).__name__} must be the last initializer of an init_cfg, '
                f'without Pretrained, but got {names}: the others would write over '
                f'its weights.'
            )


def reallocate(
    weights: Mapping[str, Tensor],
    backbone: nn.Module,
    origin: str = 'the given weights',
    prefix: str | None = None,
) -> WeightReport:
    """Loads a classifier's weights into a backbone with other numbers of blocks.

    In a supernet every branch and every option gets the weights of its place.
    A new block has random convs (Kaiming, as mmdet's ResNet starts) and, where it has
    a shortcut, a last norm with weight and bias 0: its residual branch adds nothing,
    and the ReLU after the addition changes nothing, since its input is never negative.
    Of Swin Transformers and ConvNeXt the last linear layer of each branch is 0.

    Args:
        weights: A state dict, as `backbone_weights` takes it.
        backbone: A `ReallocatedBackbone`, fixed or supernet, or mmdet's own; changed
            in place, but not where an error is raised.
        origin: Where the weights come from, for messages.
        prefix: As in `backbone_weights`.

    Raises:
        CheckpointError: The weights are of another kind of network or another width.
        UserError: `backbone` is no such network, or a new block has no norm to
            make it the identity.
    """
    target = backbone.state_dict()
    chains = _chains(target)
    if not chains:
        raise UserError(
            f'Weights are reallocated by stage and block (layer1.0, ...): give a '
            f'backbone such as CRResNet, not {type(backbone).__name__}. '
            f'mmcr.ReallocatedInit belongs in the init_cfg of the backbone, or of a '
            f'detector that has one.'
        )
    source, others = backbone_weights(weights, origin, prefix)
    depths = _depths(source)
    _check_fit(source, target, backbone, origin)
    new = {
        f'{chain}.{i}': backbone.get_submodule(f'{chain}.{i}')
        for (chain, stage), blocks in chains.items()
        for i in range(depths[stage], blocks)
    }
    random = [name for name, block in new.items() if not has_shortcut(block)]
    frozen = _frozen_identities({n: new[n] for n in new if n not in random})

    copied, kept = {}, []
    for name, value in target.items():
        if OPTION.sub('', name) in source:
            copied[name] = source[OPTION.sub('', name)].to(value.dtype)
        elif not _is_new(name, depths):
            kept.append(name)
    backbone.load_state_dict({**target, **copied})
    for block in new.values():
        _start_anew(block)

    own = set(map(_first, target))
    others += Counter(part for part in map(_first, source) if part not in own)
    return WeightReport(
        origin,
        tuple(ChainReport(c, depths[s], blocks) for (c, s), blocks in chains.items()),
        len(copied),
        tuple(kept),
        tuple(random),
        tuple(frozen),
        dict(others),
    )


def reallocate_detector(
    weights: Mapping[str, Tensor],
    detector: nn.Module,
    origin: str = 'the given weights',
    prefix: str | None = None,
) -> WeightReport:
    """Loads a detector's weights into one whose backbone was reallocated.

    Backbone as in `reallocate`, neck and heads by name. Of these, what the weights
    lack or have in another shape, as a head for other classes has, stays as it is.

    Args:
        weights: A state dict of a detector.
        detector: Likewise, with a backbone as `reallocate` takes it; changed in place.
        origin: Where the weights come from, for messages.
        prefix: As in `backbone_weights`; ``None``: that of a detector's backbone.

    Raises:
        CheckpointError: As from `reallocate`, or nothing of neck and heads fits.
        UserError: As from `reallocate`.
    """
    given = unwrapped_names(weights)
    own = detector.state_dict()
    own = {n: w for n, w in own.items() if not n.startswith('backbone.')}
    fitting = {
        n: given[n] for n in own if n in given and given[n].shape == own[n].shape
    }
    if own and not fitting:
        raise CheckpointError(
            f'{origin} must be of such a detector, but none of the {len(own)} weights '
            f'of neck and heads of this {type(detector).__name__} is in it. Weights of '
            f'a backbone alone go into the init_cfg of the backbone.'
        )
    report = reallocate(weights, detector.backbone, origin, prefix or 'backbone.')
    detector.load_state_dict(fitting, strict=False)
    ignored = Counter(
        _first(n) for n in given if n not in own and not n.startswith('backbone.')
    )
    return report._replace(
        copied=report.copied + len(fitting),
        kept=(*report.kept, *(name for name in own if name not in fitting)),
        ignored=dict(ignored),
    )


def _check_fit(
    source: Mapping[str, Tensor],
    target: Mapping[str, Tensor],
    backbone: nn.Module,
    origin: str,
) -> None:
    """Raises unless every weight of a common block or of the stem fits."""
    here = _depths(target)
    depths = {**here, **_depths(source)}  # of a stage that it lacks all is missing
    own = set(map(_first, target))
    wanted = {OPTION.sub('', n): w for n, w in target.items() if not _is_new(n, depths)}
    given = {
        n: w for n, w in source.items() if _first(n) in own and not _is_new(n, here)
    }
    both = [name for name in wanted if name in given]
    reshaped = [n for n in both if wanted[n].shape != given[n].shape]
    other_kind = [
        *(
            f'it lacks {n}'
            for n in wanted
            if n not in given and not OUTPUT_NORM.match(n)
        ),
        *(f'it has {n}' for n in given if n not in wanted),
    ]
    other_kind = [text for text in other_kind if not text.endswith(MAY_LACK)]
    network = type(backbone).__name__
    # the last vector of a block is as long as its output is wide
    ends = {
        BLOCK.match(n)[2]: n for n in both if BLOCK.match(n) and given[n].dim() == 1
    }
    theirs, ours = ([len(of[n]) for n in ends.values()] for of in (given, wanted))
    if not other_kind and theirs != ours:
        raise CheckpointError(
            f'{origin} must be as wide as this {network}, but its stages have {theirs} '
            f'channels and those here {ours}. Build the backbone as wide as the '
            f'checkpoint ({theirs[0] / ours[0]:g} times; base_channels, widen_factor, '
            f'embed_dims or arch decide that), or train this width from the start, as '
            f'the supernets of half width are pre-trained.'
        )
    differences = [
        *(f'{n} is {_size(given[n])} there, {_size(wanted[n])} here' for n in reshaped),
        *other_kind,
    ]
    if differences:
        raise CheckpointError(
            f'{origin} must be of the same kind of blocks as this {network}, but '
            f'{len(differences)} weights do not fit: {"; ".join(differences[:3])}. '
            f'Give a checkpoint of its baseline: ResNet-18 or -34 for basic blocks, '
            f'ResNet-50 or deeper for bottlenecks, ResNeXt of the same groups, '
            f'RegNet, MobileNetV2, CSPDarknet, CSPNeXt, ConvNeXt, Swin of the same '
            f'windows; or set depth, deep_stem and the like to what the checkpoint has.'
        )


def _size(weight: Tensor) -> str:
    return ' x '.join(map(str, weight.shape)) or 'a number'


def _chains(names: Mapping[str, Tensor]) -> dict[tuple[str, str], int]:
    """Number of blocks of each chain, by its name and its stage's."""
    chains = {}
    for name in names:
        if block := BLOCK.match(name):
            chain = block[1], block[2]
            chains[chain] = max(chains.get(chain, 0), int(block[3]) + 1)
    return chains


def _depths(names: Mapping[str, Tensor]) -> dict[str, int]:
    """Number of blocks of each stage, that of its longest branch."""
    chains = sorted(_chains(names).items(), key=lambda chain: chain[1])
    return {stage: blocks for (_, stage), blocks in chains}


def _is_new(name: str, depths: Mapping[str, int]) -> bool:
    block = BLOCK.match(name)
    return bool(block) and int(block[3]) >= depths[block[2]]


def _first(name: str) -> str:
    return name.split('.')[0]


def _frozen_identities(new: dict[str, nn.Module]) -> list[str]:
    """The new blocks that never learn: what ends them is frozen at 0."""
    frozen = []
    for name, block in new.items():
        weights = _ends(block)
        if not weights or any(weight is None for weight in weights):
            raise UserError(
                f'A block beyond the depth of the checkpoint starts as the identity by '
                f'a last norm of weight 0, but that of {name} has no weight. Give the '
                f'backbone a norm_cfg with weights (affine=True).'
            )
        if not any(weight.requires_grad for weight in weights):
            frozen.append(name)
    return frozen


def _start_anew(block: nn.Module) -> None:
    """As the identity, or at random where there is no shortcut."""
    KaimingInit(layer='Conv2d')(block)
    TruncNormalInit(std=0.02, layer='Linear')(block)
    for norm in _norms(block):
        norm.reset_parameters()
    for weight in _ends(block) if has_shortcut(block) else ():
        nn.init.zeros_(weight)


def _ends(block: nn.Module) -> list[nn.Parameter | None]:
    """Where these are 0, the block is the identity."""
    if hasattr(block, 'attn'):
        last = block.attn.w_msa.proj, block.ffn.layers[1]
        return [parameter for layer in last for parameter in layer.parameters()]
    if hasattr(block, 'pointwise_conv2'):  # of ConvNeXt
        return list(block.pointwise_conv2.parameters())
    return [norm.weight for norm in _norms(_last_norm(block))]


def has_shortcut(block: nn.Module) -> bool:
    """Whether a block adds what it computes to its input; one that could be new."""
    return getattr(block, 'add_identity', True)


def _norms(module: nn.Module) -> list[nn.Module]:
    return [m for m in module.modules() if is_norm(m)]


def _last_norm(block: nn.Module) -> nn.Module:
    """The norm before the addition, or the choice of it."""
    if hasattr(block, 'linear_conv'):
        return block.linear_conv.norm
    if hasattr(block, 'add_identity'):  # of CSPDarknet and CSPNeXt
        return getattr(block.conv2, 'pointwise_conv', block.conv2).norm
    return block.norm3 if hasattr(block, 'norm3') else block.norm2


def _initialize_children(module: nn.Module) -> None:
    # mmengine initializes the children after this initializer, as it does not
    # after Pretrained; those that are done it leaves alone
    for child in module.children():
        if hasattr(child, 'init_weights') and not getattr(child, 'is_init', False):
            child.init_weights()
            child.is_init = True
