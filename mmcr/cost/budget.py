"""What the networks to be found may cost: blocks, MACs, parameters or time.

Costs other than blocks are those of the network that is built in the end, at its own
width, not of the supernet. A backbone is cut into pieces: its blocks and what lies
between them. Pieces that read alike and take inputs of one size cost the same, so each
kind of piece is counted once, and a choice's value costs what its pieces cost.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mmcr.checks import check_number, checked_shape
from mmcr.cost.budget_options import SHAPE, bounds, checked_budget
from mmcr.cost.detector_macs import macs_beside_backbone
from mmcr.errors import UserError
from mmcr.registry import MODELS
from mmcr.space.arch import Arch
from mmcr.space.cost import Budget, BudgetError
from mmcr.space.space import SearchSpace
from mmcr.space.table import CostTable

UNITS = {'macs': 'multiply-accumulates', 'params': 'parameters'}


def budget_space(
    backbone: nn.Module,
    final_backbone: Mapping,
    budget: float | Mapping,
    detector: Mapping | None = None,
) -> SearchSpace:
    """Returns the supernet's space with only the architectures of a cost.

    Args:
        backbone: A searchable backbone in supernet mode.
        final_backbone: Arguments that found networks get in the place of the
            supernet's (usually their full width).
        budget: A number: the cost in the space's own unit, blocks, met exactly. Or a
            dict of ``type`` ('macs': multiply-accumulates of one image; 'params';
            'latency': milliseconds per image by a measured table), and either of
            ``limit``, the most that is allowed, or ``value`` and ``tolerance``,
            percent of the value up and down (1.0); with macs the ``shape`` of the
            image (800, 1333) and ``of``, 'backbone' or the whole 'detector'
            ('backbone'), with latency the ``table``, a file of
            tools/analysis_tools/latency_table.py.
        detector: Config of the detector that has the supernet; only for macs of the
            whole of it.

    Raises:
        BudgetError: No architecture meets the budget, or it bounds nothing because
            all architectures cost the same.
        UserError: The dict breaks its rule, or the table is none of this backbone, or
            the detector is not given or cannot be counted.
    """
    space = backbone.space
    if not isinstance(budget, Mapping):
        check_number('budget', budget, BudgetError)
        if space.cost is None:
            raise BudgetError(
                f'a budget in blocks ({budget}) needs choices of numbers of blocks; '
                f'the choices of this space, dilations, add no blocks: leave budget '
                f"out, or give a dict of type 'latency'"
            )
        return space.under(Budget.exactly(budget))
    options = checked_budget(budget)
    kind = options['type']
    if kind == 'latency':
        table = CostTable.read(options['table'])
        _check_latency_table(table, backbone, final_backbone, options['table'])
    else:
        table = count(backbone, final_backbone, kind, options.get('shape'))
    if table.is_constant:
        raise BudgetError(
            f'a budget in {kind} needs choices that change them, but every '
            f'architecture of this space (of dilations, for example) has '
            f'{table.total(next(iter(space)))} {table.unit}: leave budget out'
        )
    if options.get('of') == 'detector':
        table = _with_detector(table, backbone, final_backbone, detector)
    return SearchSpace(space.choices, table, bounds(options))


def _with_detector(
    table: CostTable,
    backbone: nn.Module,
    final_backbone: Mapping,
    detector: Mapping | None,
) -> CostTable:
    """Adds neck and heads, which cost the same for all, to what no choice decides."""
    if detector is None:
        raise UserError(
            "a budget of='detector' needs the detector of a search, but there is none "
            'here: give a budget of the backbone'
        )
    arch = next(iter(backbone.space))
    net_cfg = {**backbone.arch_cfg(arch), **final_backbone}
    channels = build_fixed(backbone, final_backbone, arch).out_channels
    others = macs_beside_backbone(detector, net_cfg, list(channels), table.shape)
    return replace(table, rest=table.rest + others)


def count(
    backbone: nn.Module,
    final_backbone: Mapping,
    kind: str,
    shape: tuple[int, int] | None = None,
) -> CostTable:
    """Counts multiply-accumulates or parameters of the networks to be found.

    Multiply-accumulates are those of convolutions and matrix products, counted by
    torch's `FlopCounterMode` on tensors without data; norms, activations and pooling
    are free, as in `mmcr.space.macs`.

    Args:
        backbone: A searchable backbone in supernet mode.
        final_backbone: As in `budget_space`.
        kind: 'macs' or 'params'.
        shape: Height and width of the image in pixels, for macs.
    """
    shape = SHAPE if shape is None else checked_shape(shape)
    cost_of = macs_of if kind == 'macs' else params_of
    pieces = pieces_of_choices(backbone, final_backbone, shape)
    costs = {}
    for _, piece in pieces:
        if piece.kind not in costs:
            costs[piece.kind] = cost_of(piece)
    rows, rest = tabulate(pieces, costs)
    return CostTable(kind, UNITS[kind], rows, rest, shape if kind == 'macs' else None)


@dataclass(frozen=True)
class Piece:
    """One piece of a fixed network: a block, or what is no block of a stage.

    Attributes:
        run: Its forward.
        modules: Those that `run` uses.
        choice: Name of the choice that decides it; None: no choice does.
        input: Shape of its input, ``1 x C x H x W``.
        kind: The same for pieces that cost the same.
    """

    run: Callable[[Tensor], Tensor]
    modules: tuple[nn.Module, ...]
    choice: str | None
    input: tuple[int, ...]

    @property
    def kind(self) -> tuple:
        return tuple(map(str, self.modules)), self.input


def build_fixed(
    backbone: nn.Module, final_backbone: Mapping, arch: Arch, device: str = 'meta'
) -> nn.Module:
    """Builds the network that `arch` becomes in the end, in evaluation mode.

    Args:
        backbone: A searchable backbone in supernet mode.
        final_backbone: As in `budget_space`.
        arch: A member of the supernet's space.
        device: Where; ``meta`` has shapes without numbers and takes no memory.
    """
    with torch.random.fork_rng(devices=[]), torch.device(device):
        net = MODELS.build({**backbone.arch_cfg(arch), **final_backbone})
    net.eval()
    return net


def pieces_of_choices(
    backbone: nn.Module, final_backbone: Mapping, shape: tuple[int, int]
) -> list[tuple[Arch, Piece]]:
    """Returns the pieces of a few networks that have every value of every choice.

    Args:
        backbone: A searchable backbone in supernet mode.
        final_backbone: As in `budget_space`.
        shape: Height and width of the image in pixels.

    Returns:
        Every piece with the network that it is of, on the device ``meta``.
    """
    choices = backbone.space.choices
    pieces, outputs = [], {}
    for i in range(max(len(choice.values) for choice in choices)):
        arch = Arch({c.name: c.values[min(i, len(c.values) - 1)] for c in choices})
        net = build_fixed(backbone, final_backbone, arch)
        size = (1, _image_channels(net), *shape)
        for choice, run, modules in _cut(backbone, net):
            piece = Piece(run, modules, choice, size)
            if piece.kind not in outputs:
                outputs[piece.kind] = tuple(_on_meta(piece).shape)
            size = outputs[piece.kind]
            pieces.append((arch, piece))
    return pieces


def tabulate(
    pieces: list[tuple[Arch, Piece]], costs: Mapping[tuple, float]
) -> tuple[dict[str, dict[int, float]], float]:
    """Sums up what each value of each choice costs.

    Args:
        pieces: As `pieces_of_choices` returns them.
        costs: By kind of piece.

    Returns:
        The costs by choice and value, and the rest, which no choice decides.
    """
    sums = defaultdict(int)
    for arch, piece in pieces:
        sums[arch, piece.choice] += costs[piece.kind]
    rows = {name: {} for name in pieces[0][0]}
    for (arch, name), cost in sums.items():
        if name is not None:
            rows[name][arch[name]] = cost
    # the networks differ in their choices alone
    return rows, next((cost for (_, name), cost in sums.items() if name is None), 0)


def macs_of(piece: Piece) -> int:
    """Returns the multiply-accumulates of a piece for one image."""
    counter = FlopCounterMode(display=False)
    with counter:
        _on_meta(piece)
    return counter.get_total_flops() // 2


def params_of(piece: Piece) -> int:
    """Returns how many parameters a piece has, trained or not."""
    return sum(p.numel() for module in piece.modules for p in module.parameters())


@torch.no_grad()
def _on_meta(piece: Piece) -> Tensor:
    try:
        return piece.run(torch.zeros(piece.input, device='meta'))
    except RuntimeError as error:
        raise UserError(
            f"costs are counted on torch's device meta, but a layer of the backbone "
            f'cannot run there: {error}'
        ) from error


def _cut(
    backbone: nn.Module, net: nn.Module
) -> Iterator[tuple[str | None, Callable[[Tensor], Tensor], tuple[nn.Module, ...]]]:
    """The pieces of a fixed network in order: choice, forward, modules."""
    steps = iter(backbone.steps())
    for step in net.steps():
        choices = next(steps).choices
        if not choices:
            yield None, step.run, step.modules
            continue
        for i, block in enumerate(step.modules[0]):
            if i > 0 and backbone.supernet != 'stage':  # its steps are blocks
                choices = next(steps).choices
            yield choices[0], block, (block,)


def _image_channels(net: nn.Module) -> int:
    return next(m.in_channels for m in net.modules() if isinstance(m, nn.Conv2d))


def _check_latency_table(
    table: CostTable, backbone: nn.Module, final_backbone: Mapping, path: str | Path
) -> None:
    macs = table.about.get('macs')
    if table.kind != 'latency' or table.unit != 'ms' or None in (table.shape, macs):
        raise UserError(
            f'a latency table must be of kind latency, in ms, with the shape of the '
            f'image and about.macs, as tools/analysis_tools/latency_table.py writes '
            f'it, but {path} has kind {table.kind!r}, unit {table.unit!r}, shape '
            f'{table.shape}'
        )
    table.check_fits(backbone.space.choices)
    theirs = CostTable.from_json(macs)
    mine = count(backbone, final_backbone, 'macs', table.shape)
    theirs.check_fits(backbone.space.choices)
    for name, row in mine.costs.items():
        for value, cost in row.items():
            if theirs.rest != mine.rest or theirs.costs[name][value] != cost:
                raise UserError(
                    f'a latency table must be of the backbone of the networks to be '
                    f'found, but {path} was measured on another: with {name}={value} '
                    f'it has {theirs.costs[name][value]} MACs (and '
                    f'{theirs.rest} that nothing decides), this one {cost} (and '
                    f'{mine.rest}). Measure again.'
                )
