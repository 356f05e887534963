"""Searches a trained supernet for the best architecture of a given cost.

A stopped search goes on from the journal in its work dir when it is started
again in the same way.
"""

import argparse

from mmengine.dist import is_main_process

from mmcr.cli import place, user_errors
from mmcr.data.sets import type_name
from mmcr.engine.launch import add_common_arguments, build_runner, load_config
from mmcr.engine.outputs import work_dir_of
from mmcr.errors import UserError
from mmcr.registry import TASK_UTILS
from mmcr.report import write_report


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', type=place, help='search config')
    parser.add_argument('checkpoint', type=place, help='checkpoint of the supernet')
    parser.add_argument(
        '--fast',
        action='store_true',
        help='compare most candidates on a part of archval: successive halving in '
        'the place of an exhaustive search, racing in that of a greedy one',
    )
    add_common_arguments(parser)
    return parser.parse_args()


def fast(searcher: str | type) -> str:
    """Name of a searcher's quicker form; its own name where it is that form."""
    kind = TASK_UTILS.get(searcher) if isinstance(searcher, str) else searcher
    quicker = getattr(kind, 'fast', None)
    if quicker is None:
        kinds = TASK_UTILS.module_dict.items()
        names = ', '.join(name for name, kind in kinds if getattr(kind, 'fast', None))
        raise UserError(
            f'--fast takes the quicker form of a searcher, which {names} have, but '
            f'{searcher} has none: leave --fast out.'
        )
    return quicker


@user_errors()
def main() -> None:
    args = parse_args()
    cfg = load_config(args)
    loop = type_name((cfg.get('test_cfg') or {}).get('type'))
    if not loop.endswith('ArchSearchLoop'):
        raise UserError(
            f"A search config has test_cfg = dict(type='mmcr.ArchSearchLoop', ...), "
            f'but {args.config} has {cfg.get("test_cfg")}. '
            'Inherit one of configs/crnas or configs/detnas, or take the one of a '
            "search step in tools/reallocate.py's work dir."
        )
    if args.fast:
        cfg.test_cfg.searcher.type = fast(cfg.test_cfg.searcher.type)
    cfg.load_from = args.checkpoint
    with work_dir_of(cfg):
        build_runner(cfg).test()
    if is_main_process():
        print(f'Report: {write_report(cfg.work_dir)}')


if __name__ == '__main__':
    main()
