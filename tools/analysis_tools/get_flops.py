"""Prints what a detector costs, part by part."""

import argparse

from mmcr.cli import place, user_errors
from mmcr.cost.complexity import measure
from mmcr.cost.macs import CONVENTIONS
from mmcr.engine.launch import add_cfg_options, add_shape, read_config, shape_of
from mmcr.registry import config_errors


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', type=place, help='config file')
    add_shape(parser, 800, 1088)
    parser.add_argument(
        '--convention',
        choices=list(CONVENTIONS),
        default='mmengine',
        help='what to count: as mmengine does, or as the paper does (default: '
        'mmengine)',
    )
    add_cfg_options(parser)
    return parser.parse_args()


@user_errors()
def main() -> None:
    args = parse_args()
    cfg = read_config(args.config, args.cfg_options)
    with config_errors(f'{args.config} has a detector that cannot be counted'):
        print(measure(cfg, shape_of(args), args.convention).table())


if __name__ == '__main__':
    main()
