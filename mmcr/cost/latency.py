"""How long the networks to be found take on a device, as a sum over their cost units.

They run by torch, or by the runtime that they are deployed with. Whole networks are
timed in the same rounds as the units, so that what the sum misses (caches, overlap of
launches) is measured under the same conditions.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from math import floor
from pathlib import Path
from random import Random
from statistics import median

import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

from mmcr.checks import check_integer, checked_shape
from mmcr.cost.budget import CostBudget
from mmcr.cost.timing import conditions, rounds_of, spread_of, warnings_of
from mmcr.cost.units import (
    CostUnit,
    build_fixed,
    count,
    run_on_meta,
    tabulate,
    units_of_choices,
)
from mmcr.errors import UserError
from mmcr.models.runtimes import SUFFIXES, check_runtime, session_of
from mmcr.registry import BUDGETS
from mmcr.space.arch import Arch
from mmcr.space.space import SearchSpace
from mmcr.space.table import CostTable

STEPS = 5000  # at least so many make up the slowest network
RUNTIMES = ('torch', *SUFFIXES)


@BUDGETS.register_module(name='latency')
class LatencyBudget(CostBudget):
    """Milliseconds per image, by a measured table.

    Args:
        table: A file of tools/analysis_tools/latency_table.py.
        bounds: As in `CostBudget`.
    """

    kind = 'latency'

    def __init__(self, table: str | Path, **bounds: float) -> None:
        super().__init__(**bounds)
        if not isinstance(table, (str, Path)):
            raise UserError(f'table must name a file, but got {table!r}')
        self.path = Path(table)

    def marks(self):
        stem = self.path.stem
        return [] if stem == 'latency' else [re.sub(r'[^\w.-]', '-', stem)]

    def table(self, backbone, final_backbone, detector=None):
        table = CostTable.read(self.path)
        macs = table.about.get('macs')
        if (table.kind, table.unit) != ('latency', 'ms') or None in (table.shape, macs):
            raise UserError(
                f'a latency table must be of kind latency, in ms, with the shape of '
                f'the image and about.macs, as tools/analysis_tools/latency_table.py '
                f'writes it, but {self.path} has kind {table.kind!r}, unit '
                f'{table.unit!r}, shape {table.shape}'
            )
        theirs = CostTable.from_json(macs)
        for each in (table, theirs):
            each.check_fits(backbone.space.choices)
        mine = count(backbone, final_backbone, 'macs', table.shape)
        for name, row in mine.costs.items():
            found = {value: theirs.costs[name][value] for value in row}
            if (theirs.fixed, found) != (mine.fixed, row):
                raise UserError(
                    f'a latency table must be of the backbone of the networks to be '
                    f'found, but {self.path} was measured on another: {name} has '
                    f'{found} MACs there ({theirs.fixed} that nothing decides), {row} '
                    f'here ({mine.fixed}). Measure again.'
                )
        return table


def latency_table(
    backbone: nn.Module,
    final_backbone: Mapping,
    shape: tuple[int, int],
    device: str = 'cpu',
    repeats: int = 30,
    check: int = 5,
    runtime: str = 'torch',
    clock: str = 'wall',
) -> CostTable:
    """Measures what every value of every choice takes, in milliseconds.

    One image at a time, in evaluation mode, in float32 and with the process's own
    settings of torch. Times are medians over rounds; in each round everything is
    timed once, in the order in which a network runs.

    A runtime other than torch lays out its tensors in a way of its own, which a block
    that is run alone pays for at both ends, and a network once. So a unit's time is
    there that of the unit behind the one before it, less that of the latter alone.

    Args:
        backbone: As `count` takes it, `final_backbone` and `shape`.
        device: 'cpu', 'cuda' or 'cuda:1'.
        repeats: Rounds.
        check: How many whole networks, drawn from the space, to time as well.
        runtime: One of `RUNTIMES`; all but torch run on the CPU.
        clock: As `rounds_of` takes it.

    Returns:
        The table; `about` has where and how it was measured, the multiply-accumulates
        of the same values, under ``check`` the error of the sum in percent and under
        ``warnings`` why not to trust it.

    Raises:
        UserError: There is no such device or runtime, or an argument breaks its rule.
    """
    shape = checked_shape(shape)
    _check_device(device, runtime)
    check_integer('repeats', repeats)
    check_integer('check', check, at_least=0)
    about = conditions(device, repeats, runtime, clock)
    units = units_of_choices(backbone, final_backbone, shape)
    archs = _draw(backbone.space, check)
    milliseconds, wholes, about['spread_percent'] = _measured(
        units,
        [build_fixed(backbone, final_backbone, arch, device) for arch in archs],
        *(device, repeats, runtime, clock),
    )
    about['macs'] = count(backbone, final_backbone, 'macs', shape).to_json()
    costs = _rounded(units, milliseconds)
    rows, fixed = tabulate(units, lambda unit: costs[unit.kind])
    rows = {name: {v: us / 1e3 for v, us in row.items()} for name, row in rows.items()}
    table = CostTable('latency', 'ms', rows, fixed / 1e3, shape, about)
    check = _errors(table, archs, wholes)
    about.update(check=check, warnings=warnings_of(about, device))
    return replace(table, about=about)


def _measured(
    units: Sequence[CostUnit],
    nets: Sequence[nn.Module],
    device: str,
    repeats: int,
    runtime: str,
    clock: str,
) -> tuple[dict[tuple, float], list[list[float]], float]:
    """Milliseconds by kind of unit; of each network by round; the spread in percent."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        pieces = _pieces(units, device, runtime)
        runs = [run for pair in pieces.values() for run in pair if run]
        image = torch.randn(units[0].input, device=device)
        if runtime != 'torch':
            nets = list(map(_LastLevel, nets))
        runs += [_run(net, image, runtime) for net in nets]
    with torch.inference_mode():
        rounds = rounds_of(runs, device, repeats, clock)
    times, zeros = dict(zip(runs, zip(*rounds))), [0] * repeats
    milliseconds = {
        kind: 1e3 * median(a - b for a, b in zip(times[run], times.get(before, zeros)))
        for kind, (run, before) in pieces.items()
    }
    wholes = [[1e3 * s for s in times[run]] for run in runs[len(runs) - len(nets) :]]
    spread = 100 * median(map(spread_of, times.values()))
    return milliseconds, wholes, round(spread, 2)


def _check_device(device: str, runtime: str) -> None:
    if not re.fullmatch(r'cpu|cuda(:\d+)?', device):
        raise UserError(f'device must be cpu, cuda or cuda:N, but got {device!r}.')
    if runtime not in RUNTIMES:
        raise UserError(
            f'runtime must be one of {", ".join(RUNTIMES)}, but got {runtime!r}.'
        )
    if runtime != 'torch':
        check_runtime(runtime)
        if device != 'cpu':
            raise UserError(f'{runtime} is timed on the device cpu, but got {device}.')
    if device.startswith('cuda') and not torch.cuda.is_available():
        raise UserError(f'device is {device}, but torch finds no CUDA device here.')


def summary(table: CostTable) -> str:
    """Returns what was measured and how far the sums are off, as lines of text."""
    width = max(map(len, table.costs))
    lines = [
        f'{name:{width}}  '
        + '  '.join(f'{value}: {ms:.3f}' for value, ms in row.items())
        for name, row in table.costs.items()
    ]
    about, check = table.about, table.about['check']
    lines += [
        f'{"fixed":{width}}  {table.fixed:.3f}'
        + (f', neck and heads {ms:.3f}' if (ms := about.get('neck_and_heads')) else ''),
        f'ms ({about["clock"]} time) for one image of {table.shape[0]} x '
        f'{table.shape[1]} (height x width) by {about["runtime"]} on '
        f'{about["device"]}; threads: {about["threads"]}, load of the '
        f'machine before: {about["load"]}, '
        f'spread: {about["spread_percent"]}%.',
    ]
    for net in check['networks']:
        arch = ', '.join(f'{name}={value}' for name, value in net['arch'].items())
        lines.append(
            f'sum {net["sum"]:9.3f}  measured {net["measured"]:9.3f}  '
            f'{net["error_percent"]:+6.2f}%  {arch}'
        )
    if check['networks']:
        lines.append(
            f'Error of the sum over {len(check["networks"])} whole backbones: median '
            f'{check["median_error_percent"]:.2f}%, largest '
            f'{check["largest_error_percent"]:.2f}%; rank correlation '
            f'{check["rank_correlation"]}; of these measured in odd rounds with even '
            f'ones {check["rank_correlation_of_rounds"]}.'
        )
    lines += [f'Warning: {warning}' for warning in about['warnings']]
    return '\n'.join(lines)


class _Chain(nn.Module):
    """Units one after the other, with random weights on a device."""

    @torch.no_grad()
    def __init__(self, units: Sequence[CostUnit], device: str) -> None:
        super().__init__()
        self.units = units
        self.layers = nn.ModuleList(module for u in units for module in u.modules)
        self.layers.to_empty(device=device)
        for tensor in (*self.layers.parameters(), *self.layers.buffers()):
            tensor.zero_()  # what no layer resets, as an index into a table
        for layer in self.layers.modules():
            if hasattr(layer, 'reset_parameters'):
                layer.reset_parameters()

    def forward(self, features: Tensor) -> Tensor:
        for unit in self.units:
            features = unit.run(features)
        return features


class _LastLevel(nn.Module):
    """A network whose other levels stay in the runtime, as a detector's do."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, image: Tensor) -> Tensor:
        return self.net(image)[-1]


def _pieces(
    units: Sequence[CostUnit], device: str, runtime: str
) -> dict[tuple, tuple[Callable, Callable | None]]:
    """By kind of unit, what to time, and what to take off its time if anything."""
    inputs, pieces = {}, {}
    joined = set() if runtime == 'torch' else _joined(units)
    for i in sorted(range(len(units)), key=lambda i: i not in joined):
        if (unit := units[i]).kind in pieces:
            continue
        lead = [units[i - 1]] if i in joined else []
        size = [*lead, unit][0].input
        if size not in inputs:
            inputs[size] = torch.randn(size, device=device)
        pieces[unit.kind] = tuple(
            _run(_Chain(chain, device), inputs[size], runtime) if chain else None
            for chain in ([*lead, unit], lead)
        )
    return pieces


def _joined(units: Sequence[CostUnit]) -> set[int]:
    """Places of units that take what the one before gives, of units on ``meta``.

    Blocks inside a layer do not: they take a part of what the layer takes.
    """
    outputs = {}
    for unit in units:
        if unit.kind not in outputs:
            outputs[unit.kind] = tuple(run_on_meta(unit).shape)
    return {
        i
        for i, (before, unit) in enumerate(pairwise(units), 1)
        if before.arch is unit.arch and outputs[before.kind] == unit.input
    }


def _run(net: nn.Module, image: Tensor, runtime: str) -> Callable:
    net.eval()
    runs = net if runtime == 'torch' else session_of(net, image, runtime)
    return partial(runs, image)


def _draw(space: SearchSpace, number: int) -> list[Arch]:
    rng, archs = Random(0), {}
    while len(archs) < min(number, space.size):
        archs[space.sample(rng)] = None
    return list(archs)


def _rounded(
    units: list[CostUnit], milliseconds: Mapping[tuple, float]
) -> dict[tuple, int]:
    """Whole microseconds by kind of unit, multiples of one step.

    That keeps sums few, each of which is a step of the exact counting under a budget.
    """
    networks = Counter()
    for unit in units:
        networks[unit.arch] += milliseconds[unit.kind]
    step = max(1, floor(1e3 * max(networks.values()) / STEPS))
    return {
        kind: max(1, round(1e3 * ms / step)) * step for kind, ms in milliseconds.items()
    }


def _errors(table: CostTable, archs: list[Arch], wholes: list[list[float]]) -> dict:
    measured = list(map(median, wholes))
    networks = [
        dict(
            arch=arch.to_json(),
            sum=table.total(arch),
            measured=round(ms, 3),
            error_percent=round(100 * (table.total(arch) / ms - 1), 2),
        )
        for arch, ms in zip(archs, measured)
    ]
    sizes = [abs(network['error_percent']) for network in networks]
    odd, even = ([median(w[i::2]) for w in wholes if len(w) > 1] for i in (0, 1))
    return dict(
        median_error_percent=median(sizes) if sizes else None,
        largest_error_percent=max(sizes) if sizes else None,
        rank_correlation=_ranks([net['sum'] for net in networks], measured),
        rank_correlation_of_rounds=_ranks(odd, even),
        networks=networks,
    )


def _ranks(ours: list[float], theirs: list[float]) -> float | None:
    return round(float(spearmanr(ours, theirs).statistic), 3) if len(ours) > 2 else None
