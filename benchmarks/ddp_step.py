"""What a supernet's step costs on several processes, by what wraps the model.

    python benchmarks/ddp_step.py --out DIR

Gloo processes on this machine's CPU train the same paths of a supernet's detector, in
turn with mmengine's MMDistributedDataParallel that looks for unused parameters and with

- `active-path`: mmcr.ActivePathDDP,
- `active-each`: that with a bucket for every parameter.

Bytes are what the collectives of a step are given, counted by torch's profiler. A
wrapper holds what resident memory grows by from wrapping to the end of the first steps,
without the momentum of the paths (Linux); every wrapper in processes of its own.
"""

import argparse
import ctypes
import gc
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import datetime, timezone
from functools import partial
from itertools import product
from pathlib import Path
from random import Random
from statistics import median, quantiles
from typing import Any

import torch
from mmengine.logging import MMLogger
from mmengine.model import MMDistributedDataParallel
from mmengine.registry import init_default_scope
from speed_results import hardware, versions
from torch import distributed, nn
from torch.profiler import profile
from training_steps import (
    SUPERNETS,
    Trainee,
    batch_of,
    give_back_at_once,
    resident,
    supernet_of,
)

from mmcr.cli import leave_process_group, user_errors
from mmcr.engine.launch import import_formatter
from mmcr.errors import UserError
from mmcr.space import Arch
from mmcr.training import ActivePathDDP


def ddp(model: nn.Module, **options) -> nn.Module:
    return MMDistributedDataParallel(
        model, find_unused_parameters=True, broadcast_buffers=False, **options
    )


WAYS = {
    'active-path': ActivePathDDP,
    'active-each': partial(ActivePathDDP, bucket_cap_mb=1e-6),
}
WRAPPERS = dict(WAYS, ddp=ddp)
# collectives of these wrappers, and the size of what they exchange
COLLECTIVES = {'all_reduce': 4, 'all_gather': 8}  # float32 or int32; int64


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--out', required=True, help='folder for the figures')
    parser.add_argument('--net', choices=SUPERNETS, default='r50-stage')
    parser.add_argument('--share', choices=['prefix', 'branch'], default='prefix')
    parser.add_argument('--ways', nargs='+', choices=WAYS, default=['active-path'])
    parser.add_argument('--processes', type=int, nargs='+', default=[2, 4])
    parser.add_argument('--paths', type=int, default=3)
    parser.add_argument('--repeats', type=int, default=5, help='steps of every path')
    parser.add_argument(
        '--size', type=int, nargs=2, default=[128, 128], help='height and width'
    )
    parser.add_argument('--batch-size', type=int, default=1, help='of every process')
    return parser.parse_args()


def bytes_of(step: Callable, *arguments) -> int:
    """What collectives are given in a step."""
    with profile(record_shapes=True) as profiler:
        step(*arguments)
    kinds = (event.name.split(':') for event in profiler.events())
    return sum(
        COLLECTIVES[kind[1]] * torch.Size(event.input_shapes[0]).numel()
        for kind, event in zip(kinds, profiler.events())
        if kind[0] == 'gloo'
    )


def active_bytes(model: nn.Module) -> int:
    inside = {*model.backbone.parameters()}
    used = {*model.parameters()} - inside | {*model.backbone.active_parameters()}
    return sum(p.nbytes for p in used if p.requires_grad)


def in_group(count: int, measure: Callable, *arguments) -> Any:
    """What `measure` returns on rank 0 of so many new processes."""
    with tempfile.TemporaryDirectory() as out:
        torch.multiprocessing.start_processes(
            work, (count, measure, arguments, out), nprocs=count, start_method='fork'
        )
        return json.loads((Path(out) / 'found.json').read_text())


def work(rank: int, count: int, measure: Callable, arguments: tuple, out: str) -> None:
    """A process: measures, and rank 0 writes what it found."""
    torch.set_num_threads(1)
    MMLogger.get_instance('steps', log_level='ERROR')
    init_default_scope('mmdet')
    distributed.init_process_group(
        'gloo', init_method=f'file://{out}/store', rank=rank, world_size=count
    )
    found = measure(*arguments)
    if rank == 0:
        (Path(out) / 'found.json').write_text(json.dumps(found))
    distributed.barrier()
    leave_process_group()


def held_bytes(wrap: Callable, args: argparse.Namespace) -> int:
    """What is there after the first steps that was not before wrapping."""
    give_back_at_once()
    batch, model = batch_of(args.batch_size, *args.size), model_of(args)
    paths = paths_of(model, args)
    # what all steps load; of another model, which goes
    Trainee(model_of(args), 'cpu').step(batch, paths[0])
    before = kept()
    trainee = Trainee(model, 'cpu', wrap=wrap)
    for path in paths:
        trainee.step(batch, path)
    return kept() - before - trainee.state_bytes()


def kept() -> int:
    """Resident memory without what the allocator has at hand."""
    gc.collect()
    libc = ctypes.CDLL(None)
    if hasattr(libc, 'malloc_trim'):  # glibc
        libc.malloc_trim(0)
    return resident('VmRSS')


def model_of(args: argparse.Namespace) -> nn.Module:
    stage = args.net.endswith('stage')  # others have no such option
    return supernet_of(args.net, **(dict(share=args.share) if stage else {}))


def paths_of(model: nn.Module, args: argparse.Namespace) -> list[Arch]:
    rng = Random(0)
    return [model.backbone.space.sample(rng) for _ in range(args.paths)]


def compare(way: str, args: argparse.Namespace) -> dict:
    """Times steps with both wrappers in turn: A B, B A, A B, ..."""
    batch = batch_of(args.batch_size, *args.size)
    model = model_of(args)
    paths = paths_of(model, args)
    trainees, sent = {}, {}
    for name in ('ddp', way):
        other = model_of(args)
        for parameter, weight in zip(other.parameters(), model.parameters()):
            parameter.data = weight.data  # rates are 0: one copy is enough
        trainees[name] = Trainee(other, 'cpu', wrap=WRAPPERS[name])
        sent[name] = [bytes_of(trainees[name].step, batch, path) for path in paths]
    seconds = {name: [] for name in trainees}
    for repeat, path in product(range(args.repeats), paths):
        for name in [*trainees][:: 1 if repeat % 2 else -1]:
            distributed.barrier()
            start = time.perf_counter()
            trainees[name].step(batch, path)
            taken = torch.tensor(time.perf_counter() - start)
            distributed.all_reduce(taken, distributed.ReduceOp.MAX)
            seconds[name].append(taken.item())
    active = []
    for path in paths:
        model.backbone.set_arch(path)
        active.append(active_bytes(model))
    return dict(
        paths=[path.to_json() for path in paths],
        active_bytes=active,
        all_bytes=sum(p.nbytes for p in model.parameters() if p.requires_grad),
        sent_bytes=sent,
        seconds=seconds,
    )


def measured(args: argparse.Namespace) -> list[dict]:
    """A row for every number of processes and way."""
    rows = []
    for count in args.processes:
        held = {
            name: in_group(count, held_bytes, WRAPPERS[name], args)
            for name in ('ddp', *args.ways)
        }
        for way in args.ways:
            found = in_group(count, compare, way, args)
            held_now = {name: held[name] for name in ('ddp', way)}
            row = dict(net=args.net, processes=count, way=way, held_bytes=held_now)
            rows.append(row | found)
    return rows


def cells(row: dict) -> list[str]:
    """A line of the table."""
    way, active = row['way'], sum(row['active_bytes'])
    ours, theirs = row['seconds'][way], row['seconds']['ddp']
    ratios = [one / other for one, other in zip(ours, theirs)]
    low, _, high = quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    sent = [sum(row['sent_bytes'][name]) for name in (way, 'ddp')]
    held = [row['held_bytes'][name] / 2**20 for name in (way, 'ddp')]
    return [
        str(row['processes']),
        way,
        f'{median(ours):.3f} s',
        f'{median(theirs):.3f} s',
        f'{median(ratios):.2f} ({low:.2f} to {high:.2f})',
        *(f'{total / active:.4f}' for total in sent),
        *(f'{size:.0f} MiB' for size in held),
    ]


def table(setting: dict, rows: list[dict]) -> str:
    """The figures as Markdown."""
    heads = ['processes', 'wrapper', 'its step', "DDP's", 'ratio (middle half)']
    heads += ['exchanges', 'DDP', 'holds', 'DDP']
    packages = (f'{name} {number}' for name, number in setting['versions'].items())
    height, width = setting['size']
    active = sum(rows[0]['active_bytes']) / len(rows[0]['active_bytes'])
    return '\n'.join(
        [
            '# Training step of a supernet on several processes',
            '',
            f'{setting["date"]}; {setting["hardware"]}; one thread per process; '
            f'images of {height} x {width}, {setting["batch_size"]} per process; '
            f'{rows[0]["net"]}, share={setting["share"]}, on average '
            f'{active / 2**20:.1f} MiB of active parameters of '
            f'{rows[0]["all_bytes"] / 2**20:.1f} MiB.',
            '',
            f'Load average of the machine: {setting["load"][0]:.1f} before and '
            f'{setting["load"][1]:.1f} at the end, with these processes.',
            '',
            f'    {setting["command"]}',
            '',
            f'| {" | ".join(heads)} |',
            f'| ---: | --- |{" ---: |" * (len(heads) - 2)}',
            *(f'| {" | ".join(cells(row))} |' for row in rows),
            '',
            'Ratios are of steps of one path, one after the other; the median and the '
            'middle half are given. What is exchanged is given in sizes of the active '
            'parameters. Held memory is that of rank 0, beside the momentum, '
            'to a few MiB.',
            '',
            f'Versions: {", ".join(packages)}.',
            '',
        ]
    )


@user_errors()
def main() -> None:
    args = parse_args()
    counts = args.paths, args.repeats, args.batch_size, *args.size
    if min(counts) < 1 or min(args.processes) < 2:
        raise UserError(
            f'--paths, --repeats, --batch-size and --size must be at least 1 and '
            f'--processes at least 2, but got {" ".join(sys.argv[1:])}.'
        )
    import_formatter()
    load = [os.getloadavg()[0]]
    rows = measured(args)
    load.append(os.getloadavg()[0])
    setting = dict(
        date=datetime.now(timezone.utc).isoformat(timespec='seconds'),
        command=' '.join(['python', *sys.argv]),
        hardware=hardware('cpu'),
        versions=versions(),
        load=load,
        **vars(args),
    )
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    (out / 'ddp_step.json').write_text(
        json.dumps(dict(setting=setting, rows=rows), indent=2)
    )
    (out / 'ddp_step.md').write_text(table(setting, rows))
    print(table(setting, rows))


if __name__ == '__main__':
    main()
