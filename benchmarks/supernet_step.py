"""What a supernet's training step costs, in time and in memory.

    python benchmarks/supernet_step.py step --out DIR

times steps of a supernet's detector on some paths, and the same steps of the fixed
networks of these paths, in turn; the losses have to be equal. Its peaks of memory are
those above what is there between steps.

    python benchmarks/supernet_step.py memory --out DIR

tells what a stage supernet takes with either `share`, with and without `with_cp`.

On a CPU every peak is one of resident memory, in a forked process of its own whose
allocator gives memory back at once (Linux); on a GPU it is torch's own count.
"""

import argparse
import json
import sys
from datetime import datetime, timezone
from itertools import product
from pathlib import Path
from random import Random
from statistics import median

import torch
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from speed_results import hardware, versions
from training_steps import (
    SUPERNETS,
    Trainee,
    batch_of,
    fixed_of,
    in_own_process,
    supernet_of,
)

from mmcr.cli import user_errors
from mmcr.errors import UserError
from mmcr.space import Arch, stage_arch, stage_blocks_of

STAGE = [name for name in SUPERNETS if name.endswith('stage')]
PATHS = ['baseline', 'deepest']
SMALL = (1, 64, 64)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    kinds = parser.add_subparsers(dest='kind', required=True)
    step = kinds.add_parser('step', help='supernet against its fixed networks')
    step.add_argument('--nets', nargs='+', choices=SUPERNETS, default=[*SUPERNETS])
    step.add_argument('--paths', type=int, default=3, help='per supernet')
    step.add_argument('--repeats', type=int, default=5, help='steps of every network')
    memory = kinds.add_parser('memory', help='both ways to share blocks')
    memory.add_argument('--nets', nargs='+', choices=STAGE, default=['r50-stage'])
    memory.add_argument('--path', nargs='+', choices=PATHS, default=PATHS)
    for kind, size in ((step, [256, 320]), (memory, [800, 1333])):
        kind.add_argument('--out', required=True, help='folder for the figures')
        kind.add_argument(
            '--size', type=int, nargs=2, default=size, help='height and width in pixels'
        )
        kind.add_argument('--batch-size', type=int, default=2)
        kind.add_argument('--device', choices=['cpu', 'cuda'], default=best_device())
        kind.add_argument('--amp', action='store_true')
    return parser.parse_args()


def best_device() -> str:
    return 'cuda' if torch.cuda.is_available() else 'cpu'


def sampled(space, count: int) -> list[Arch]:
    rng = Random(0)
    return [space.sample(rng) for _ in range(count)]


def path_bytes(name: str, index: int, fixed: bool, args: argparse.Namespace) -> int:
    """The peak of a step of a sampled path; in a new process."""
    model = supernet_of(name)
    arch = sampled(model.backbone.space, args.paths)[index]
    if fixed:
        model, arch = fixed_of(name, model, arch), None
    trainee = Trainee(model, args.device, args.amp)
    batch = batch_of(args.batch_size, *args.size)
    return trainee.step_bytes(batch, batch_of(*SMALL), arch)


def peaks(name: str, args: argparse.Namespace) -> list[list[float]]:
    """Of every path in MiB, in the supernet and alone."""
    return [
        [
            in_own_process(args.device, path_bytes, name, i, fixed, args) / 2**20
            for fixed in (False, True)
        ]
        for i in range(args.paths)
    ]


def compare(name: str, args: argparse.Namespace) -> dict:
    """Times supernet and fixed networks in turn: A B, B A, A B, ..."""
    supernet = Trainee(supernet_of(name), args.device, args.amp)
    batch = batch_of(args.batch_size, *args.size)
    paths = sampled(supernet.model.backbone.space, args.paths)
    fixed = [
        Trainee(fixed_of(name, supernet.model, arch), args.device, args.amp)
        for arch in paths
    ]
    seconds = [dict(supernet=[], fixed=[]) for _ in paths]
    for repeat in range(-1, args.repeats):  # the first one warms up
        for arch, alone, taken in zip(paths, fixed, seconds):
            ways = [('supernet', supernet, arch), ('fixed', alone, None)]
            found = {}
            for way, trainee, path in ways if repeat % 2 else reversed(ways):
                found[way] = trainee.timed(batch, path)
            losses = {way: loss for way, (_, loss) in found.items()}
            if losses['supernet'] != losses['fixed']:
                raise RuntimeError(f'{name} at {arch}: other losses, {losses}')
            if repeat >= 0:
                for way, (time, _) in found.items():
                    taken[way].append(time)
    return dict(net=name, paths=[dict(arch) for arch in paths], seconds=seconds)


def step_cells(row: dict) -> list[str]:
    """A line of the table of steps."""
    supernet, fixed = (
        sum(median(taken[way]) for taken in row['seconds'])
        for way in ('supernet', 'fixed')
    )
    repeats = range(len(row['seconds'][0]['fixed']))
    ratios = [
        sum(taken['supernet'][i] for taken in row['seconds'])
        / sum(taken['fixed'][i] for taken in row['seconds'])
        for i in repeats
    ]
    count = len(row['seconds'])
    ours, alone = (sum(pair[i] for pair in row['step_mib']) / count for i in (0, 1))
    return [
        row['net'],
        f'{supernet / count:.3f} s',
        f'{fixed / count:.3f} s',
        f'{supernet / fixed:.3f} ({min(ratios):.3f} to {max(ratios):.3f})',
        f'{ours:.0f} MiB',
        f'{alone:.0f} MiB',
        f'{ours / alone:.3f}',
    ]


def sharing(
    name: str, share: str, with_cp: bool, which: str, args: argparse.Namespace
) -> dict:
    """What one stage supernet takes on one path; in a new process."""
    model = supernet_of(name, share=share, with_cp=with_cp)
    choices = model.backbone.space.choices
    arch = stage_arch([max(choice.values) for choice in choices])
    if which == 'baseline':
        arch = stage_arch([3, 4, 6, 3] if len(choices) == 4 else [2, 3, 4, 3, 3])
    trainee = Trainee(model, args.device, args.amp)
    peak = trainee.step_bytes(
        batch_of(args.batch_size, *args.size), batch_of(*SMALL), arch
    )
    trainable = [p for p in model.parameters() if p.requires_grad]
    held = [*model.parameters(), *model.buffers()]
    return dict(
        net=name,
        share=share,
        with_cp=with_cp,
        path=list(stage_blocks_of(arch)),
        parameters=sum(p.numel() for p in model.parameters()),
        weights_mib=sum(tensor.nbytes for tensor in held) / 2**20,
        path_state_mib=trainee.state_bytes() / 2**20,
        # in the end every path has been drawn, and SGD keeps the momentum of all
        state_mib=sum(p.nbytes for p in trainable) / 2**20,
        step_mib=peak / 2**20,
    )


def memory_cells(row: dict) -> list[str]:
    """A line of the table of memory."""
    sizes = [row['weights_mib'], row['state_mib'], row['step_mib']]
    return [
        row['net'],
        row['share'],
        'yes' if row['with_cp'] else 'no',
        str(row['path']),
        f'{row["parameters"] / 1e6:.1f} M',
        *(f'{size:.0f} MiB' for size in [*sizes, sum(sizes)]),
    ]


HEADS = dict(
    step=(
        'Training step of a supernet and of its fixed networks',
        ['supernet', 'its step', 'fixed', 'ratio (range of the repeats)']
        + ['its peak', 'fixed', 'ratio'],
    ),
    memory=(
        'Memory of stage supernets',
        ['supernet', 'share', 'with_cp', 'path', 'parameters', 'weights']
        + ['momentum', 'peak of a step', 'together'],
    ),
)


def table(kind: str, setting: dict, rows: list[dict]) -> str:
    """The figures as Markdown."""
    title, heads = HEADS[kind]
    cells = [(step_cells if kind == 'step' else memory_cells)(row) for row in rows]
    packages = (f'{name} {number}' for name, number in setting['versions'].items())
    height, width = setting['size']
    return '\n'.join(
        [
            f'# {title}',
            '',
            f'{setting["date"]}; {setting["hardware"]}; threads: '
            f'{setting["threads"]}; {setting["batch_size"]} images of {height} x '
            f'{width}{", AMP" if setting["amp"] else ""}.',
            '',
            f'    {setting["command"]}',
            '',
            f'| {" | ".join(heads)} |',
            f'| --- |{" ---: |" * (len(heads) - 1)}',
            *(f'| {" | ".join(line)} |' for line in cells),
            '',
            f'Versions: {", ".join(packages)}.',
            '',
        ]
    )


@user_errors()
def main() -> None:
    args = parse_args()
    counts = (getattr(args, 'paths', 1), getattr(args, 'repeats', 1), args.batch_size)
    if min(*counts, *args.size) < 1:
        raise UserError(
            f'--paths, --repeats, --batch-size and --size must be at least 1, but got '
            f'{" ".join(sys.argv[1:])}.'
        )
    if args.amp and args.device == 'cpu':
        raise UserError('--amp must come with --device cuda: mmengine has it there.')
    MMLogger.get_instance('steps', log_level='ERROR')
    init_default_scope('mmdet')
    setting = dict(
        date=datetime.now(timezone.utc).isoformat(timespec='seconds'),
        command=' '.join(['python', *sys.argv]),
        hardware=hardware(args.device),
        threads=torch.get_num_threads(),
        versions=versions(),
        **vars(args),
    )
    if args.kind == 'step':
        # first: once a process has run threads, it should fork no more
        taken = {name: peaks(name, args) for name in args.nets}
        rows = [dict(compare(name, args), step_mib=taken[name]) for name in args.nets]
    else:
        cases = product(args.nets, ('branch', 'prefix'), (False, True), args.path)
        rows = [in_own_process(args.device, sharing, *case, args) for case in cases]
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    stem = 'supernet_step' if args.kind == 'step' else 'supernet_memory'
    (out / f'{stem}.json').write_text(
        json.dumps(dict(setting=setting, rows=rows), indent=2)
    )
    (out / f'{stem}.md').write_text(table(args.kind, setting, rows))
    print(table(args.kind, setting, rows))


if __name__ == '__main__':
    main()
