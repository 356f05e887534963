"""What takes how long on a device, and under which conditions."""

import os
import platform
import re
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from math import ceil
from pathlib import Path
from statistics import quantiles

import mmcv
import mmdet
import torch

from mmcr.errors import UserError
from mmcr.models.runtimes import runtime_versions

QUEUED = 0.005  # seconds of work handed to a GPU at once, so that launches overlap
WARM_UP = 3  # calls of each, before the first round
STEADY = 10  # percent that times may move by from round to round without a warning


def rounds_of(
    runs: Sequence[Callable], device: str, repeats: int, clock: str = 'wall'
) -> list[list[float]]:
    """Seconds that each takes, in rounds in which all take turns.

    Args:
        runs: What is called, without arguments.
        device: 'cpu', 'cuda' or 'cuda:1'.
        repeats: Rounds.
        clock: 'wall', or 'processor': what this process computes, without the time
            that others take from it on a busy CPU. Only of one thread is it how long
            something takes.
    """
    is_cuda = device.startswith('cuda')
    now = time.perf_counter if clock == 'wall' else time.process_time
    synchronize = torch.cuda.synchronize if is_cuda else torch.cpu.synchronize

    def seconds(run: Callable, calls: int = 1) -> float:
        synchronize(device)
        start = now()
        for _ in range(calls):
            run()
        synchronize(device)
        return (now() - start) / calls

    # the first calls choose algorithms and fill caches
    warm = [min(seconds(run) for _ in range(WARM_UP)) for run in runs]
    # on a CPU once: as in a network, the weights then have left the caches
    calls = [ceil(QUEUED / s) if is_cuda else 1 for s in warm]
    return [[seconds(run, n) for run, n in zip(runs, calls)] for _ in range(repeats)]


def spread_of(times: Sequence[float]) -> float:
    """The interquartile range over the median."""
    if len(times) < 2:
        return 0.0
    low, middle, high = quantiles(times, n=4, method='inclusive')
    return (high - low) / middle


def warnings_of(about: Mapping, device: str) -> list[str]:
    """Why not to trust a measurement.

    Args:
        about: `conditions`, with ``spread_percent``.
        device: As in `rounds_of`.
    """
    said = []
    busy = (about['load'] or 0) + about['threads'] > about['cores']
    if device == 'cpu' and about['clock'] == 'wall' and busy:
        said.append(
            f'The machine was busy: a load of {about["load"]} before, beside '
            f'{about["threads"]} threads of this measurement, on {about["cores"]} '
            f'cores.'
        )
    if about['spread_percent'] > STEADY:
        said.append(
            f'Times moved by {about["spread_percent"]:.1f}% from round to round '
            f'(interquartile range over median), more than {STEADY}%.'
        )
    return said


def conditions(
    device: str, repeats: int, runtime: str = 'torch', clock: str = 'wall'
) -> dict:
    """Where and how something is measured, as JSON; to be asked for beforehand.

    Args:
        device: As in `rounds_of`, `repeats` too.
        runtime: What runs it.
        clock: As in `rounds_of`.

    Raises:
        UserError: The clock does not say there how long something takes.
    """
    threads = torch.get_num_threads()
    if clock == 'processor' and (device != 'cpu' or threads > 1):
        raise UserError(
            f"The processor's time tells how long something takes on the device cpu "
            f'by one thread alone (OMP_NUM_THREADS=1), but this is {device} with '
            f'{threads} threads.'
        )
    is_cuda = device.startswith('cuda')
    versions = {m.__name__: str(m.__version__) for m in (torch, mmcv, mmdet)}
    if runtime != 'torch':
        versions.update(runtime_versions(runtime))
    return dict(
        runtime=runtime,
        device=torch.cuda.get_device_name(device) if is_cuda else cpu_name(),
        threads=threads,
        clock=clock,
        cores=len(os.sched_getaffinity(0)),
        # of others: it stretches whole networks more than short pieces
        load=round(os.getloadavg()[0], 2) if hasattr(os, 'getloadavg') else None,
        images=1,
        precision='float32',
        cudnn_benchmark=torch.backends.cudnn.benchmark if is_cuda else None,
        warm_up=WARM_UP,
        rounds=repeats,
        date=date.today().isoformat(),
        versions=versions,
    )


def cpu_name() -> str:
    """What the processor calls itself."""
    info = Path('/proc/cpuinfo')
    found = re.search('model name.*: (.*)', info.read_text() if info.exists() else '')
    return found[1] if found else platform.processor() or platform.machine()
