"""One place of a supernet where one of several layers runs."""

import copy
from collections.abc import Callable, Sequence
from itertools import islice

from mmengine.model import BaseModule, ModuleDict
from torch import Tensor, nn

from mmcr.space import Choice


class LayerChoice(BaseModule):
    """Runs the active one of its options; the others take no part.

    Parameters of an inactive option are not in the autograd graph, so they get
    no gradient, no momentum and no weight decay.

    Args:
        choice: Name of the choice that decides here. Several places may share one (a
            conv and its norm).
        options: The layer that runs for each value of the choice.
    """

    def __init__(self, choice: str, options: dict[int, nn.Module]) -> None:
        super().__init__()
        self.choice = choice
        self.options = ModuleDict({str(v): layer for v, layer in options.items()})
        self.active = next(iter(options))

    @property
    def active_option(self) -> nn.Module:
        """The layer that the next forward runs."""
        return self.options[str(self.active)]

    def forward(self, x: Tensor) -> Tensor:
        return self.active_option(x)

    def fixed_name(self, name: str, value: int) -> str | None:
        """What a fixed network of `value` calls a weight of this, if it has it."""
        kept = f'options.{value}.'
        return name.removeprefix(kept) if name.startswith(kept) else None

    def extra_repr(self) -> str:
        return f'choice={self.choice!r}, active={self.active}'


class ChainChoice(LayerChoice):
    """Runs as many of the first blocks of one chain as the choice says."""

    def __init__(self, choice: Choice, build: Callable[[int], nn.Sequential]) -> None:
        # "options" in a weight's name says that it is a supernet's
        super().__init__(choice.name, dict(chain=build(max(choice.values))))
        self.active = choice.values[0]

    @property
    def active_option(self) -> nn.Module:
        return nn.Sequential(*islice(self.options['chain'], self.active))

    def fixed_name(self, name: str, value: int) -> str | None:
        name = name.removeprefix('options.chain.')
        return name if int(name.split('.')[0]) < value else None


def dilate(conv: nn.Module, dilation: int) -> nn.Module:
    """Dilates a conv of odd size, or a list of such, in place; returns it.

    The size of the output stays.
    """
    # a deformable one with the conv of its offsets, as mmdet does
    for layer in conv.modules():
        if not isinstance(layer, nn.ModuleList):
            layer.dilation = (dilation, dilation)
            layer.padding = tuple(dilation * (side // 2) for side in layer.kernel_size)
    return conv


def open_dilation_choice(
    parent: nn.Module,
    conv: str,
    norm: str | None,
    choice: str,
    dilations: Sequence[int],
    share_weights: bool,
) -> None:
    """Turns a conv and its norm into a choice of dilation (CR-NAS, Sec. 3.3).

    `conv` and `norm` (``None``: there is none) are their names in `parent`, which is
    changed in place; both may be lists, as Res2Net's. Convs may share one weight; norms
    never do.
    """
    source = getattr(parent, conv)
    if isinstance(source, nn.ModuleList):
        for i in map(str, range(len(source))):
            open_dilation_choice(source, i, None, choice, dilations, share_weights)
            open_norm_choice(getattr(parent, norm), i, choice, dilations)
        return
    convs = {d: dilate(copy.deepcopy(source), d) for d in dilations}
    if share_weights:
        for option in convs.values():
            option.weight = source.weight
    setattr(parent, conv, LayerChoice(choice, convs))
    if norm is not None:
        open_norm_choice(parent, norm, choice, dilations)


def open_norm_choice(
    parent: nn.Module, norm: str, choice: str, dilations: Sequence[int]
) -> None:
    """Gives every dilation a norm of its own; the names are as there."""
    source = getattr(parent, norm)
    norms = {d: copy.deepcopy(source) for d in dilations}
    setattr(parent, norm, LayerChoice(choice, norms))
