"""A backbone as a sum of cost units: its blocks and what lies between them.

Costs are those of the network that is built in the end, at its own width. Units that
read alike and take inputs of one size cost the same, so each kind is counted once.
"""

import copy
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor, nn

from mmcr.checks import checked_shape
from mmcr.cost.macs import MacsCounter, params_of, shapes_only
from mmcr.errors import UserError
from mmcr.registry import MODELS
from mmcr.space.arch import Arch
from mmcr.space.table import CostTable

SHAPE = (800, 1333)  # the largest image of the recipes, height and width


@dataclass(frozen=True)
class CostUnit:
    """A block of a fixed network, or what is no block of a stage.

    Attributes:
        run: Its forward.
        modules: Those that `run` uses.
        choice: Name of the choice that decides it; None: no choice does.
        input: Shape of its input, ``1 x C x H x W``.
        arch: Of the network that it is of.
    """

    run: Callable[[Tensor], Tensor]
    modules: tuple[nn.Module, ...]
    choice: str | None
    input: tuple[int, ...]
    arch: Arch | None = None

    @property
    def kind(self) -> tuple:
        """The same for units that cost the same."""
        return tuple(map(str, self.modules)), self.input


def macs_of(unit: CostUnit) -> int:
    """Returns the multiply-accumulates of a unit for one image."""
    with MacsCounter() as counter:
        run_on_meta(unit)
    return counter.total


COUNTED = {
    'macs': ('multiply-accumulates', macs_of),
    'params': ('parameters', lambda unit: params_of(*unit.modules)),
}


def count(
    backbone: nn.Module,
    final_backbone: Mapping,
    kind: str,
    shape: tuple[int, int] | None = None,
) -> CostTable:
    """Counts multiply-accumulates or parameters of the networks to be found.

    Multiply-accumulates are those of convolutions and matrix products; norms,
    activations and pooling are free.

    Args:
        backbone: A searchable backbone in supernet mode.
        final_backbone: Arguments that found networks get in the place of the
            supernet's (usually their full width).
        kind: 'macs' or 'params'.
        shape: Height and width of the image in pixels, for macs; None: 800x1333.
    """
    unit, cost_of = COUNTED[kind]
    shape = checked_shape(shape or SHAPE)
    units = units_of_choices(backbone, final_backbone, shape)
    rows, fixed = tabulate(units, cost_of)
    return CostTable(kind, unit, rows, fixed, shape if kind == 'macs' else None)


def units_of_choices(
    backbone: nn.Module, final_backbone: Mapping, shape: tuple[int, int]
) -> list[CostUnit]:
    """Returns the units of a few networks that have every value of every choice.

    They are on the device ``meta``. The arguments are `count`'s.
    """
    choices = backbone.space.choices
    units, outputs = [], {}
    for i in range(max(len(choice.values) for choice in choices)):
        arch = Arch({c.name: c.values[min(i, len(c.values) - 1)] for c in choices})
        net = build_fixed(backbone, final_backbone, arch)
        # even, as CSPDarknet's stem wants it; others round up likewise
        size = (1, net.image_channels, *(side + side % 2 for side in shape))
        inside = _inputs_inside(net, size)
        for choice, run, modules in _cut(backbone, net):
            given = inside.get(modules[0], size)
            unit = CostUnit(run, modules, choice, given, arch)
            if unit.kind not in outputs:
                outputs[unit.kind] = tuple(run_on_meta(unit).shape)
            if modules[0] not in inside:
                size = outputs[unit.kind]
            units.append(unit)
    return units


def tabulate(
    units: list[CostUnit], cost_of: Callable[[CostUnit], float]
) -> tuple[dict[str, dict[int, float]], float]:
    """Adds up what each value of each choice costs.

    Args:
        units: As `units_of_choices` returns them.
        cost_of: What a unit costs; called once for each kind.

    Returns:
        The costs by choice and value, and the fixed cost, which no choice decides.
    """
    costs, sums = {}, defaultdict(int)
    for unit in units:
        if unit.kind not in costs:
            costs[unit.kind] = cost_of(unit)
        sums[unit.arch, unit.choice] += costs[unit.kind]
    first = units[0].arch
    fixed = sums[first, None]  # the networks differ in their choices alone
    rows = {name: {} for name in first}
    for (arch, name), cost in sums.items():
        if name is not None:
            rows[name][arch[name]] = cost
    return rows, fixed


def build_fixed(
    backbone: nn.Module, final_backbone: Mapping, arch: Arch, device: str = 'meta'
) -> nn.Module:
    """Builds the network that a member of the space becomes in the end, for evaluation.

    The first two arguments are `count`'s; ``meta`` is a device of shapes alone.
    """
    with torch.random.fork_rng(devices=[]), torch.device(device):
        net = MODELS.build({**backbone.arch_cfg(arch), **final_backbone})
    net.eval()
    return net


@torch.no_grad()
def run_on_meta(unit: CostUnit) -> Tensor:
    """Returns a unit's output; a `UserError` where it needs more than shapes."""
    try:
        with shapes_only(*unit.modules):
            return unit.run(torch.zeros(unit.input, device='meta'))
    except RuntimeError as error:
        raise UserError(
            f"costs are counted on torch's device meta, but a layer of the backbone "
            f'cannot run there: {error}'
        ) from error


def _inputs_inside(
    net: nn.Module, size: tuple[int, ...]
) -> dict[nn.Module, tuple[int, ...]]:
    """Shapes of what blocks inside a layer take, for images of a size."""
    parts = [step.modules[0] for step in net.steps()]
    inner = [blocks for part in parts if (blocks := net.chain_of(part)) is not part]
    inputs = {}

    def note(block: nn.Module, given: tuple[Tensor]) -> None:
        inputs[block] = tuple(given[0].shape)

    with ExitStack() as hooks:
        for block in chain.from_iterable(inner):
            hooks.enter_context(block.register_forward_pre_hook(note))
        if inner:
            run_on_meta(CostUnit(net, (net,), None, size))
    return inputs


def _cut(
    backbone: nn.Module, net: nn.Module
) -> Iterator[tuple[str | None, Callable[[Tensor], Tensor], tuple[nn.Module, ...]]]:
    """The units of a fixed network in order: choice, forward, modules."""
    steps = iter(backbone.steps())
    for step in net.steps():
        choices = next(steps).choices
        if not choices:
            yield None, step.run, step.modules
        else:
            blocks = net.chain_of(step.modules[0])
            if blocks is not step.modules[0]:
                yield None, *_around(step.modules[0], blocks)
            for i, block in enumerate(blocks):
                if i > 0 and backbone.supernet != 'stage':  # a step is a block, or more
                    choices = choices[1:] or next(steps).choices
                yield choices[0], block, (block,)
        if step.output_modules:
            yield None, step.output, step.output_modules


def _around(
    layer: nn.Module, blocks: nn.Module
) -> tuple[Callable[[Tensor], Tensor], tuple[nn.Module, ...]]:
    """A layer without the blocks that it holds: forward, modules."""
    rest = copy.copy(layer)
    vars(rest).pop('forward', None)  # of a layer that checkpoints itself
    rest._modules = {
        name: nn.Sequential() if child is blocks else child
        for name, child in layer.named_children()
    }
    return rest, tuple(child for child in layer.children() if child is not blocks)
