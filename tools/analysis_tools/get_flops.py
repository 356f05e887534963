"""Prints what a detector costs, part by part."""

import argparse
from pathlib import Path

from mmengine.config import Config, DictAction

from mmcr.analysis.complexity import CONVENTIONS, measure
from mmcr.cli import user_errors
from mmcr.errors import UserError


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument(
        '--shape', type=int, nargs='+', default=[800, 1088], metavar='PIXELS',
        help='height and width of the image, or one number for both '
        '(default: 800 1088)')
    parser.add_argument(
        '--convention', choices=list(CONVENTIONS), default='mmengine',
        help='what to count: as mmengine does, or as the paper does (default: '
        'mmengine)')
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction,
        help='override settings of the config, as key=value; a list is written '
        'key="[a,b]" or key=a,b, without white space')
    return parser.parse_args()


@user_errors()
def main() -> None:
    args = parse_args()
    if not Path(args.config).is_file():
        raise UserError(f'The config must be a file, but there is none at '
                        f'{args.config}.')
    cfg = Config.fromfile(args.config)
    cfg.merge_from_dict(args.cfg_options or {})
    shape = tuple(args.shape * (2 if len(args.shape) == 1 else 1))
    print(measure(cfg, shape, args.convention).table())


if __name__ == '__main__':
    main()
