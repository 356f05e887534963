"""How long the networks to be found take on a device, as a sum over their cost units.

Whole networks are timed in the same rounds as the units, so that what the sum misses
(caches, overlap of launches) is measured under the same conditions.
"""

import os
import platform
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import date
from functools import partial
from math import ceil, floor
from pathlib import Path
from random import Random
from statistics import median

import mmcv
import mmdet
import torch
from torch import nn

from mmcr.checks import check_integer, checked_shape
from mmcr.cost.budget import CostBudget
from mmcr.cost.units import CostUnit, build_fixed, count, tabulate, units_of_choices
from mmcr.errors import UserError
from mmcr.registry import BUDGETS
from mmcr.space.arch import Arch
from mmcr.space.space import SearchSpace
from mmcr.space.table import CostTable

STEPS = 5000  # at least so many make up the slowest network
QUEUED = 0.005  # seconds of work handed to a GPU at once, so that launches overlap


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
) -> CostTable:
    """Measures what every value of every choice takes, in milliseconds.

    One image at a time, in evaluation mode, in float32 and with the process's own
    settings of torch. Times are medians over rounds; in each round everything is
    timed once, in the order in which a network runs.

    Args:
        backbone: As `count` takes it, `final_backbone` and `shape`.
        device: 'cpu', 'cuda' or 'cuda:1'.
        repeats: Rounds.
        check: How many whole networks, drawn from the space, to time as well.

    Returns:
        The table; `about` has where and how it was measured, the multiply-accumulates
        of the same values and, under ``check``, the error of the sum in percent.

    Raises:
        UserError: There is no such device, or an argument breaks its rule.
    """
    shape = checked_shape(shape)
    if not re.fullmatch(r'cpu|cuda(:\d+)?', device):
        raise UserError(f'device must be cpu, cuda or cuda:N, but got {device!r}.')
    if device.startswith('cuda') and not torch.cuda.is_available():
        raise UserError(f'device is {device}, but torch finds no CUDA device here.')
    check_integer('repeats', repeats)
    check_integer('check', check, at_least=0)
    about = _conditions(device, repeats)
    units = units_of_choices(backbone, final_backbone, shape)
    kinds = {unit.kind: unit for unit in units}
    with torch.random.fork_rng(devices=[]), torch.inference_mode():
        inputs = {u.input: torch.randn(u.input, device=device) for u in kinds.values()}
        runs = [partial(_ready(u, device), inputs[u.input]) for u in kinds.values()]
        archs = _draw(backbone.space, check)
        image = inputs[units[0].input]
        for arch in archs:
            net = build_fixed(backbone, final_backbone, arch, device)
            runs.append(partial(net, image))
        milliseconds = [1e3 * s for s in _medians(runs, device, repeats)]

    about['macs'] = count(backbone, final_backbone, 'macs', shape).to_json()
    costs = _rounded(units, dict(zip(kinds, milliseconds)))
    rows, fixed = tabulate(units, lambda unit: costs[unit.kind])
    rows = {name: {v: us / 1e3 for v, us in row.items()} for name, row in rows.items()}
    table = CostTable('latency', 'ms', rows, fixed / 1e3, shape, about)
    check = _errors(table, archs, milliseconds[len(kinds) :])
    return replace(table, about=dict(about, check=check))


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
        f'{"fixed":{width}}  {table.fixed:.3f}',
        f'ms for one image of {table.shape[0]} x {table.shape[1]} (height x width) on '
        f'{about["device"]}; threads: {about["threads"]}, load of the machine before: '
        f'{about["load"]}.',
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
            f'{check["largest_error_percent"]:.2f}%.'
        )
    return '\n'.join(lines)


def _ready(unit: CostUnit, device: str) -> Callable[[torch.Tensor], torch.Tensor]:
    """Gives a unit random weights on the device; returns its forward."""
    for module in unit.modules:
        module.to_empty(device=device)
        for tensor in (*module.parameters(), *module.buffers()):
            tensor.zero_()  # what no layer resets, as an index into a table
        for layer in module.modules():
            if hasattr(layer, 'reset_parameters'):
                layer.reset_parameters()
    return unit.run


def _draw(space: SearchSpace, number: int) -> list[Arch]:
    rng, archs = Random(0), {}
    while len(archs) < min(number, space.size):
        archs[space.sample(rng)] = None
    return list(archs)


def _medians(runs: Sequence[Callable], device: str, repeats: int) -> list[float]:
    """Seconds that each takes: the median over rounds in which all take turns."""
    is_cuda = device.startswith('cuda')
    synchronize = torch.cuda.synchronize if is_cuda else torch.cpu.synchronize

    def seconds(run: Callable, calls: int = 1) -> float:
        synchronize(device)
        start = time.perf_counter()
        for _ in range(calls):
            run()
        synchronize(device)
        return (time.perf_counter() - start) / calls

    # the first calls choose algorithms and fill caches
    warm = [min(seconds(run) for _ in range(3)) for run in runs]
    # on a CPU once: as in a network, the weights then have left the caches
    calls = [ceil(QUEUED / s) if is_cuda else 1 for s in warm]
    rounds = [[seconds(run, n) for run, n in zip(runs, calls)] for _ in range(repeats)]
    return [median(times) for times in zip(*rounds)]


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


def _errors(table: CostTable, archs: list[Arch], measured: list[float]) -> dict:
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
    return dict(
        median_error_percent=median(sizes) if sizes else None,
        largest_error_percent=max(sizes) if sizes else None,
        networks=networks,
    )


def _conditions(device: str, repeats: int) -> dict:
    is_cuda = device.startswith('cuda')
    return dict(
        device=torch.cuda.get_device_name(device) if is_cuda else cpu_name(),
        threads=torch.get_num_threads(),
        # of others: it stretches whole networks more than short pieces
        load=round(os.getloadavg()[0], 2) if hasattr(os, 'getloadavg') else None,
        images=1,
        precision='float32',
        cudnn_benchmark=torch.backends.cudnn.benchmark if is_cuda else None,
        rounds=repeats,
        date=date.today().isoformat(),
        versions={m.__name__: str(m.__version__) for m in (torch, mmcv, mmdet)},
    )


def cpu_name() -> str:
    """What the processor calls itself."""
    info = Path('/proc/cpuinfo')
    found = re.search('model name.*: (.*)', info.read_text() if info.exists() else '')
    return found[1] if found else platform.processor() or platform.machine()
