"""What a supernet's training step costs, in time and in memory.

    python benchmarks/supernet_step.py step --out DIR

times steps of a supernet's detector on some paths, and the same steps of the fixed
networks of these paths, in turn; the losses have to be equal. Its peaks of memory are
those above what is there between steps.

    python benchmarks/supernet_step.py memory --out DIR

tells what a stage supernet takes with either `share`, with and without `with_cp`.

    python benchmarks/supernet_step.py warm --out DIR

compares a step of a supernet as wide as its detector with one of mmdet's plain detector
(frozen stage, norms in evaluation mode), in turn, by the time of the processor.

On a CPU every peak is one of resident memory, in a forked process of its own whose
allocator gives memory back at once (Linux); on a GPU it is torch's own count.
"""

import argparse
import json
import sys
import time
from datetime import datetime, timezone
from itertools import product
from pathlib import Path
from random import Random
from statistics import median

import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from speed_results import hardware, versions
from training_steps import (
    SUPERNETS,
    Trainee,
    batch_of,
    detector_cfg,
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
    warm = kinds.add_parser('warm', help='full width against the plain detector')
    warm.add_argument('--path', nargs='+', choices=PATHS, default=PATHS)
    warm.add_argument('--repeats', type=int, default=3, help='steps of each')
    sizes = (step, [256, 320], 2), (memory, [800, 1333], 2), (warm, [800, 1333], 1)
    for kind, size, count in sizes:
        kind.add_argument('--out', required=True, help='folder for the figures')
        kind.add_argument(
            '--size', type=int, nargs=2, default=size, help='height and width in pixels'
        )
        kind.add_argument('--batch-size', type=int, default=count)
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


def warm_trainee(
    which: str, with_cp: bool, args: argparse.Namespace
) -> tuple[Trainee, Arch | None]:
    """A ResNet-50's supernet of full width and a path, or mmdet's plain detector."""
    cfg = detector_cfg('r50-stage', share='prefix', base_channels=64, with_cp=with_cp)
    cfg.neck.in_channels = [256, 512, 1024, 2048]
    if which == 'plain':
        path, _ = Config._get_cfg_path(
            'mmdet::_base_/models/faster-rcnn_r50_fpn.py', ''
        )
        cfg.backbone = {**Config.fromfile(path).model.backbone, 'init_cfg': None}
    torch.manual_seed(0)
    trainee = Trainee(MODELS.build(cfg), args.device, args.amp)
    if which == 'plain':
        return trainee, None
    deepest = [max(c.values) for c in trainee.model.backbone.space.choices]
    return trainee, stage_arch([3, 4, 6, 3] if which == 'baseline' else deepest)


def warm_mib(which: str, with_cp: bool, args: argparse.Namespace) -> float:
    """Weights, the momentum of all paths, and the peak of a step; in a new process."""
    trainee, arch = warm_trainee(which, with_cp, args)
    batch, small = batch_of(args.batch_size, *args.size), batch_of(*SMALL)
    peak = trainee.step_bytes(batch, small, arch)
    learns = [p for p in trainee.model.parameters() if p.requires_grad]
    held = [*trainee.model.parameters(), *trainee.model.buffers(), *learns]
    return (peak + sum(tensor.nbytes for tensor in held)) / 2**20


def warm_rows(args: argparse.Namespace) -> list[dict]:
    """Of the plain detector, then of every path with and without `with_cp`."""
    cases = [('plain', False), *product(args.path, (False, True))]
    taken = [in_own_process(args.device, warm_mib, *case, args) for case in cases]
    trainees = [warm_trainee(*case, args) for case in cases]
    seconds = [[] for _ in cases]
    for repeat in range(-1, args.repeats):  # the first one warms up, on a small image
        size = SMALL if repeat < 0 else (args.batch_size, *args.size)
        for (trainee, arch), found in zip(trainees, seconds):
            before = time.process_time()
            wall, _ = trainee.timed(batch_of(*size), arch)
            spent = time.process_time() - before if args.device == 'cpu' else wall
            found += [spent] * (repeat >= 0)
    return [
        dict(net=which, with_cp=with_cp, mib=mib, seconds=found)
        | dict(ratio=mib / taken[0], ratios=[a / b for a, b in zip(found, seconds[0])])
        for (which, with_cp), mib, found in zip(cases, taken, seconds)
    ]


def warm_cells(row: dict) -> list[str]:
    """A line of the table of warm supernets."""
    least, ratio, most = (of(row['ratios']) for of in (min, median, max))
    return [
        row['net'],
        'yes' if row['with_cp'] else 'no',
        f'{median(row["seconds"]):.1f} s',
        f'{ratio:.2f} ({least:.2f} to {most:.2f})',
        f'{row["mib"]:.0f} MiB',
        f'{row["ratio"]:.2f}',
    ]


CELLS = dict(step=step_cells, memory=memory_cells, warm=warm_cells)
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
    warm=(
        'A supernet as wide as its detector, and the plain detector',
        ['path', 'with_cp', 'step', 'ratio (range of the repeats)']
        + ['memory', 'ratio'],
    ),
)


def table(kind: str, setting: dict, rows: list[dict]) -> str:
    """The figures as Markdown."""
    title, heads = HEADS[kind]
    cells = [CELLS[kind](row) for row in rows]
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
    if args.kind == 'warm':
        rows = warm_rows(args)
    elif args.kind == 'step':
        # first: once a process has run threads, it should fork no more
        taken = {name: peaks(name, args) for name in args.nets}
        rows = [dict(compare(name, args), step_mib=taken[name]) for name in args.nets]
    else:
        cases = product(args.nets, ('branch', 'prefix'), (False, True), args.path)
        rows = [in_own_process(args.device, sharing, *case, args) for case in cases]
    (out := Path(args.out)).mkdir(parents=True, exist_ok=True)
    page, record = table(args.kind, setting, rows), dict(setting=setting, rows=rows)
    (out / f'supernet_{args.kind}.json').write_text(json.dumps(record, indent=2))
    (out / f'supernet_{args.kind}.md').write_text(page)
    print(page)


if __name__ == '__main__':
    main()
