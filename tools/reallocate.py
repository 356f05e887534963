"""Reallocates a backbone's computation on your data, from supernet to comparison.

With CR-NAS it runs the stage supernet and search, the operation supernet and
search, and trains the baseline, the stage-reallocated and the fully reallocated
network by one recipe; with DetNAS the supernet and the evolutionary search, and it
trains ShuffleNetV2 and the found network. Started again, it goes on where it was.
"""

import argparse
import os
from pathlib import Path

from mmcr.cli import resumable, user_errors
from mmcr.workflow.reallocation import METHODS, Pipeline


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config that inherits from $CR_STEP')
    parser.add_argument('--work-dir', help='where logs and results go')
    parser.add_argument(
        '--method', choices=METHODS, default=METHODS[0], help='(default: %(default)s)'
    )
    parser.add_argument(
        '--depth',
        type=int,
        choices=[18, 50],
        help='of the ResNet of crnas (default: 18)',
    )
    parser.add_argument(
        '--jobs',
        type=int,
        default=1,
        help='steps that may run side by side (default: %(default)s)',
    )
    parser.add_argument(
        '--fast',
        action='store_true',
        help='search by halving and racing, as with tools/search.py --fast; crnas only',
    )
    return parser.parse_args()


@user_errors()
def main() -> None:
    args = parse_args()
    work_dir = args.work_dir or os.path.join('work_dirs', Path(args.config).stem)
    with resumable():
        pipeline = Pipeline(
            args.config,
            work_dir,
            args.depth,
            args.jobs,
            fast=args.fast,
            method=args.method,
        )
        print(pipeline.run())


if __name__ == '__main__':
    main()
