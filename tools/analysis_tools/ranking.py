"""Tells whether a supernet's ranking can be trusted, by training members alone.

Trains members of a stage space, spread over it, with several seeds each, and compares
their AP with what searches said of them, with what costs no training, and with what
the same network moves between seeds. Started again, it goes on where it was.
"""

import argparse
from pathlib import Path

from mmcr.cli import place, resumable, user_errors
from mmcr.data.checks import check_config
from mmcr.engine.launch import read_config
from mmcr.errors import UserError
from mmcr.registry import config_errors
from mmcr.workflow.contests.study import RankingStudy
from mmcr.workflow.place import check_place
from mmcr.workflow.settings import settings_of

#: Beside a folder for each network.
WRITTEN = ('configs.json', 'members.json', 'ranking.md', 'ranking.json', 'ranking.png')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', type=place, help='config of a detector')
    parser.add_argument(
        '--search',
        action='append',
        default=[],
        metavar='NAME=FOLDER',
        help='work dir of a finished stage search that scored the members; may be '
        'given many times, for supernets that were trained or scored in other ways',
    )
    parser.add_argument(
        '--work-dir', type=place, required=True, help='where results go'
    )
    parser.add_argument(
        '--members', type=int, default=12, help='networks (default: %(default)s)'
    )
    parser.add_argument(
        '--seeds', type=int, default=3, help='trainings of each (default: %(default)s)'
    )
    return parser.parse_args()


@user_errors()
def main() -> None:
    args = parse_args()
    searches = by_name(args.search)
    with resumable():
        cfg = read_config(args.config)
        settings = settings_of(cfg.pop('reallocation', {}))
        check_place(Path(args.work_dir), Path(args.config), WRITTEN)
        with config_errors(f'{args.config} cannot be understood'):
            print(check_config(cfg), flush=True)
            study = RankingStudy(
                cfg, args.work_dir, searches, args.members, args.seeds, settings.options
            )
        print(study.run())


def by_name(texts: list[str]) -> dict[str, str]:
    """The folders of all NAME=FOLDER."""
    searches = {}
    for text in texts:
        name, _, folder = text.partition('=')
        if not (name and folder):
            raise UserError(f'--search takes NAME=FOLDER, but got {text!r}.')
        if name in searches:
            raise UserError(
                f'Each --search takes a name of its own, but {name} names both '
                f'{searches[name]} and {folder}.'
            )
        searches[name] = folder
    return searches


if __name__ == '__main__':
    main()
