"""Reallocates the computation of a detector's backbone, on your own data.

CONFIG is the config of any mmdet detector whose backbone mmcr can search. With CR-NAS
it trains and searches a stage supernet and an operation supernet. The best of the
searches then meet your detector, all trained by your recipe: some seeds choose, others
judge. Each training has a folder with a plain config in the work dir; the verdict and
the network that it recommends are in its result/. Started again, it goes on where it
was.
"""

import argparse
import os
import warnings
from dataclasses import fields
from pathlib import Path

from mmcr.cli import place, resumable, user_errors
from mmcr.data.checks import check_config
from mmcr.engine.launch import (
    add_cfg_options,
    add_check_images,
    add_trust,
    read_config,
)
from mmcr.files import undone_if_refused
from mmcr.models.weights.checkpoint import only_weights
from mmcr.registry import BUDGETS, config_errors
from mmcr.workflow.place import alone, check_place
from mmcr.workflow.reallocation import WRITTEN, Reallocation
from mmcr.workflow.recipe import METHODS, RECIPES, Options
from mmcr.workflow.settings import FRONT, Settings, settings_of
from mmcr.workflow.variants.grown import GrownReallocation, wanted
from mmcr.workflow.variants.scaled import ScaledReallocation
from mmcr.workflow.variants.warm import WarmReallocation


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', type=place, help='config of a detector')
    parser.add_argument(
        '--work-dir',
        type=place,
        help='where all goes (default: work_dirs/NAME_OF_THE_CONFIG)',
    )
    parser.add_argument(
        '--from',
        dest='checkpoint',
        metavar='CHECKPOINT',
        help='of your detector, trained: the supernet starts from it, at its full '
        "width, or with --grow what is found (default: the config's load_from, if it "
        'has one; none: leave that out)',
    )
    parser.add_argument(
        '--grow',
        action=argparse.BooleanOptionalAction,
        help='with --from: supernets start from nothing, and what they find starts '
        'from your detector, block by block, as that is trained on (default: off)',
    )
    parser.add_argument('--method', choices=METHODS, help='(default: crnas)')
    parser.add_argument('--recipe', choices=RECIPES, help='(default: paper)')
    parser.add_argument(
        '--archval',
        metavar='N|FILE',
        help='training images to hold out for scoring architectures, or a COCO file '
        'of images that are held out already (default: a tenth)',
    )
    parser.add_argument(
        '--budget',
        choices=list(BUDGETS.module_dict),
        help="what the found networks have as much of as yours (default: the paper's "
        'blocks, where those of all stages cost alike, else macs)',
    )
    parser.add_argument(
        '--latency-table',
        metavar='FILE',
        help='of tools/analysis_tools/latency_table.py, for --budget latency; with '
        '--scales those of the others are FILE_x0.75.json and so on, beside it',
    )
    parser.add_argument(
        '--front',
        type=float,
        nargs='*',
        metavar='COST',
        help='search from the least to the greatest of these costs, in those of your '
        'backbone, and recommend a network for each (default: '
        f'{" ".join(map(str, FRONT))}); with --from only',
    )
    parser.add_argument(
        '--scales',
        type=float,
        nargs='+',
        metavar='SCALE',
        help='image scales, in that of your config, to search beside it, at equal '
        'cost of the whole detector (macs or latency); crnas only, without --from',
    )
    parser.add_argument(
        '--width',
        type=float,
        help="of supernets, in widths of your backbone (default: the paper's 0.5); "
        'crnas only',
    )
    parser.add_argument(
        '--fast',
        action='store_true',
        default=None,
        help='search by halving and racing; crnas only',
    )
    parser.add_argument(
        '--dilations',
        action=argparse.BooleanOptionalAction,
        help='search the dilation of every block as well (default: on); crnas only',
    )
    parser.add_argument(
        '--gate',
        choices=('warn', 'stop'),
        help='what happens where the images cannot tell the networks of a supernet '
        'apart (default: warn)',
    )
    parser.add_argument(
        '--candidates',
        type=int,
        metavar='N',
        help="how many of the searches' best meet in the run-off (default: 4)",
    )
    parser.add_argument(
        '--trainings',
        type=int,
        metavar='N',
        help='of the run-off and the verdict together (default: what costs no more '
        'than the supernets, 6 at least)',
    )
    parser.add_argument(
        '--jobs',
        type=int,
        metavar='N',
        help='trainings of the run-off side by side, on a CPU (default: 1)',
    )
    parser.add_argument(
        '--gpus', type=int, metavar='N', help='run steps on N GPUs, by torchrun'
    )
    parser.add_argument(
        '--amp',
        action='store_true',
        default=None,
        help='train with automatic mixed precision',
    )
    parser.add_argument(
        '--auto-scale-lr',
        action=argparse.BooleanOptionalAction,
        dest='scale_lr',
        help='let the learning rate follow the batch size times the GPUs (default: on)',
    )
    parser.add_argument(
        '--write-only', action='store_true', help="write the steps' configs and stop"
    )
    parser.add_argument(
        '--dry-run', action='store_true', help='say what would be done and stop'
    )
    add_cfg_options(parser)
    parser.add_argument('--depth', help=argparse.SUPPRESS)
    add_check_images(parser)
    add_trust(parser)
    args = parser.parse_args()
    if args.front == []:
        args.front = FRONT
    return args


def given(args: argparse.Namespace) -> dict:
    """What the command line says of a reallocation."""
    names = [field.name for kind in (Settings, Options) for field in fields(kind)]
    values = {name: getattr(args, name, None) for name in names}
    return {name: value for name, value in values.items() if value is not None}


@user_errors()
def main() -> None:
    args = parse_args()
    only_weights(args.trust_checkpoint)  # the steps inherit it
    if args.depth is not None:
        warnings.warn(
            "--depth has no effect any more: the depth is that of your config's "
            'backbone.',
            stacklevel=2,
        )
    cfg = read_config(args.config, args.cfg_options)
    settings = settings_of(cfg.pop('reallocation', {}), **given(args))
    name = Path(args.config).stem
    work_dir = args.work_dir or os.path.join('work_dirs', name)
    what = f'{args.config} cannot be understood'
    with config_errors(what):
        print(check_config(cfg, args.check_images), flush=True)
        if checkpoint := wanted(cfg, settings):
            kind = GrownReallocation if settings.grow else WarmReallocation
            work = kind(cfg, name, work_dir, settings, checkpoint)
        elif settings.scales:
            work = ScaledReallocation(cfg, name, work_dir, settings)
        else:
            work = Reallocation(cfg, name, work_dir, settings)
    steps = [step.name for step in work.steps]
    check_place(Path(work_dir), Path(args.config), WRITTEN, steps)
    with resumable(), alone(Path(work_dir)) as lock:
        with undone_if_refused(Path(work_dir)), config_errors(what):
            work.write()
        if args.write_only:
            print(*work.notes, *work.configs, sep='\n')
            return
        print(work.understanding(), 'Timing a few iterations ...', sep='\n', flush=True)
        print(f'\n{work.plan()}', flush=True)
        if not args.dry_run:
            print(work.run(lock))


if __name__ == '__main__':
    main()
