"""Trains a detector or a supernet."""

import argparse

from mmcr.checks import check_integer
from mmcr.cli import place, user_errors
from mmcr.engine.launch import (
    add_common_arguments,
    build_trainer,
    load_config,
)
from mmcr.engine.outputs import check_no_training, work_dir_of
from mmcr.errors import UserError


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', type=place, help='config file')
    add_common_arguments(parser)
    parser.add_argument(
        '--amp', action='store_true', help='train with automatic mixed precision'
    )
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate to the batch size of this run',
    )
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        type=place,
        metavar='CHECKPOINT',
        help='go on from this checkpoint; without one, from the latest in the work dir',
    )
    return parser.parse_args()


@user_errors()
def main() -> None:
    args = parse_args()
    cfg = load_config(args)
    if args.amp:
        if not cfg.get('optim_wrapper'):
            raise UserError(
                f'--amp changes the optim_wrapper of the config, but {args.config} '
                f'has none. Add one, or leave --amp out.'
            )
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.loss_scale = 'dynamic'
    if args.auto_scale_lr:
        base = (cfg.get('auto_scale_lr') or {}).get('base_batch_size')
        if base is None:
            raise UserError(
                f'--auto-scale-lr needs auto_scale_lr.base_batch_size in the '
                f'config, the batch size that its learning rate is for, but '
                f'{args.config} has none.'
            )
        check_integer('auto_scale_lr.base_batch_size of a config', base)
        cfg.auto_scale_lr.enable = True
    if args.resume is None:
        check_no_training(cfg)
    with work_dir_of(cfg):
        build_trainer(cfg, args.resume).train()


if __name__ == '__main__':
    main()
