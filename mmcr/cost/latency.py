"""How long the networks to be found take on a device, as a sum over their pieces.

Every kind of block that a choice can bring is timed by itself. Whole networks are
timed in the same rounds, so that what the sum misses (caches, overlap of launches) is
measured under the same conditions and stated in the table.
"""

import os
import platform
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from math import ceil, floor, log10
from random import Random
from statistics import median

import torch
from torch import nn

from mmcr.checks import checked_shape
from mmcr.cost.budget import (
    Piece,
    build_fixed,
    count,
    pieces_of_choices,
    tabulate,
)
from mmcr.errors import UserError
from mmcr.space.arch import Arch
from mmcr.space.space import SearchSpace
from mmcr.space.table import CostTable

STEPS = 5000  # at least so many units of the table make up the slowest network
QUEUED = 0.005  # seconds of work handed to a GPU at once, so that launches overlap
PACKAGES = {
    'torch': ['torch'],
    'mmcv': ['mmcv', 'onedl-mmcv', 'mmcv-lite'],
    'mmdet': ['mmdet', 'onedl-mmdetection'],
}


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
        backbone: A searchable backbone in supernet mode.
        final_backbone: Arguments that found networks get in the place of the
            supernet's (usually their full width).
        shape: Height and width of the image in pixels.
        device: 'cpu', 'cuda' or 'cuda:1'.
        repeats: Rounds.
        check: How many whole networks, drawn from the space, to time as well.

    Returns:
        The table; its `about` says where and how it was measured, has the
        multiply-accumulates of the same values and, under ``check``, the error of
        the sum in percent.

    Raises:
        UserError: There is no such device, or an argument breaks its rule.
    """
    shape = checked_shape(shape)
    _check_arguments(device, repeats, check)
    about = _conditions(device, repeats)
    pieces = pieces_of_choices(backbone, final_backbone, shape)
    kinds = {}
    for _, piece in pieces:
        kinds.setdefault(piece.kind, piece)
    with torch.random.fork_rng(devices=[]), torch.inference_mode():
        inputs = {p.input: torch.randn(p.input, device=device) for p in kinds.values()}
        runs = [_ready(p, inputs[p.input], device) for p in kinds.values()]
        archs = _draw(backbone.space, check)
        image = torch.randn(pieces[0][1].input, device=device)
        for arch in archs:
            net = build_fixed(backbone, final_backbone, arch, device)
            runs.append(lambda net=net: net(image))
        seconds = _medians(runs, device, repeats)

    pieces_ms = dict(zip(kinds, (1e3 * s for s in seconds)))
    networks_ms = [1e3 * s for s in seconds[len(kinds) :]]
    about['macs'] = count(backbone, final_backbone, 'macs', shape).to_json()
    rows, rest = tabulate(pieces, _rounded(pieces, pieces_ms))
    rows = {name: {v: us / 1e3 for v, us in row.items()} for name, row in rows.items()}
    table = CostTable('latency', 'ms', rows, rest / 1e3, shape, about)
    return replace(table, about=dict(about, check=_errors(table, archs, networks_ms)))


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
        f'{"rest":{width}}  {table.rest:.3f}',
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


def _check_arguments(device: str, repeats: int, check: int) -> None:
    if not re.fullmatch(r'cpu|cuda(:\d+)?', device):
        raise UserError(f'device must be cpu, cuda or cuda:N, but got {device!r}.')
    if device.startswith('cuda') and not torch.cuda.is_available():
        raise UserError(f'device is {device}, but torch finds no CUDA device here.')
    if repeats < 1 or check < 0:
        raise UserError(
            f'repeats must be at least 1 and check at least 0, but got {repeats} and '
            f'{check}.'
        )


def _ready(piece: Piece, x: torch.Tensor, device: str) -> Callable[[], object]:
    """Gives a piece random weights on the device; returns its forward."""
    for module in piece.modules:
        module.to_empty(device=device)
        for layer in module.modules():
            if hasattr(layer, 'reset_parameters'):
                layer.reset_parameters()
    return lambda: piece.run(x)


def _draw(space: SearchSpace, number: int) -> list[Arch]:
    rng, archs = Random(0), {}
    while len(archs) < min(number, space.size):
        archs[space.sample(rng)] = None
    return list(archs)


def _medians(runs: Sequence[Callable], device: str, repeats: int) -> list[float]:
    """Seconds that each takes: the median over rounds in which all take turns."""
    is_cuda = device.startswith('cuda')

    def seconds(run: Callable, calls: int = 1) -> float:
        if is_cuda:
            torch.cuda.synchronize(device)
        start = time.perf_counter()
        for _ in range(calls):
            run()
        if is_cuda:
            torch.cuda.synchronize(device)
        return (time.perf_counter() - start) / calls

    # the first calls choose algorithms and fill caches
    warm = [min(seconds(run) for _ in range(3)) for run in runs]
    # on a CPU once: as in a network, the weights then have left the caches
    calls = [ceil(QUEUED / s) if is_cuda else 1 for s in warm]
    rounds = [[seconds(run, n) for run, n in zip(runs, calls)] for _ in range(repeats)]
    return [median(times) for times in zip(*rounds)]


def _rounded(
    pieces: list[tuple[Arch, Piece]], milliseconds: Mapping[tuple, float]
) -> dict[tuple, int]:
    """Whole microseconds, a few digits of them.

    Costs that are multiples of one unit keep the exact counting under a budget
    quick: it takes a step for every sum that the choices can make.
    """
    slowest = {}
    for arch, piece in pieces:
        slowest[arch] = slowest.get(arch, 0) + milliseconds[piece.kind]
    unit = 1e3 * max(slowest.values()) / STEPS
    power = 10 ** max(0, floor(log10(unit)))
    unit = max(n * power for n in (1, 2, 5) if n == 1 or n * power <= unit)
    return {
        kind: max(1, round(1e3 * ms / unit)) * unit for kind, ms in milliseconds.items()
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
        versions={name: _version(names) for name, names in PACKAGES.items()},
    )


def cpu_name() -> str:
    """What the processor calls itself."""
    try:
        with open('/proc/cpuinfo') as file:
            names = [line.split(':')[1] for line in file if line.startswith('model n')]
        return names[0].strip()
    except (OSError, IndexError):
        return platform.processor() or platform.machine()


def _version(names: Sequence[str]) -> str | None:
    for name in names:
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return None
