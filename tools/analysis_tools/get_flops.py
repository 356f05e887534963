"""Prints what a detector costs, part by part."""

import argparse

from mmengine.config import DictAction

from mmcr.analysis.complexity import CONVENTIONS, measure
from mmcr.cli import user_errors
from mmcr.launch import read_config


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument(
        '--shape',
        type=int,
        nargs='+',
        default=[800, 1088],
        metavar='PIXELS',
        help='height and width of the image, or one number for both '
        '(default: 800 1088)',
    )
    parser.add_argument(
        '--convention',
        choices=list(CONVENTIONS),
        default='mmengine',
        help='what to count: as mmengine does, or as the paper does (default: '
        'mmengine)',
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        help='override settings of the config, as key=value; a list is written '
        'key="[a,b]" or key=a,b, without white space',
    )
    return parser.parse_args()


@user_errors()
def main() -> None:
    args = parse_args()
    cfg = read_config(args.config, args.cfg_options)
    shape = tuple(args.shape * (2 if len(args.shape) == 1 else 1))
    print(measure(cfg, shape, args.convention).table())


if __name__ == '__main__':
    main()
