"""Weights of one path of a supernet, for its fixed network (SPOS)."""

from collections import OrderedDict

from torch import nn

from mmcr.errors import UserError
from mmcr.models.layer_choice import LayerChoice
from mmcr.space.arch import Arch


def path_state_dict(supernet: nn.Module, arch: Arch) -> OrderedDict:
    """The weights and buffers of one path, named as in the fixed network.

    Tensors are those of the supernet, not copies.
    """
    supernet._require_space().validate(arch)
    state = supernet.state_dict()
    for name, module in supernet.named_modules():
        if not isinstance(module, LayerChoice):
            continue
        inside, path = f'{name}.', OrderedDict()
        for key, value in state.items():
            if not key.startswith(inside):
                path[key] = value
                continue
            kept = module.fixed_name(key[len(inside) :], arch[module.choice])
            if kept is not None:
                path[inside + kept] = value
        state = path
    return state


def inherit_weights(supernet: nn.Module, fixed: nn.Module, arch: Arch) -> None:
    """Copies the weights and BN buffers of `arch` into its fixed network.

    Raises:
        ArchError: `arch` is not a member of the space.
        UserError: `fixed` is another network: some key has no partner or
            another shape.
    """
    weights = path_state_dict(supernet, arch)
    try:
        fixed.load_state_dict(weights, strict=True)
    except (RuntimeError, UserError) as error:
        raise UserError(
            f'The fixed network must be the one that supernet.arch_cfg(arch) '
            f'describes for {arch}, every key accounted for. {error}'
        ) from None
