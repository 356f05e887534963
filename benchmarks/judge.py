"""Architectures that you name against the detector's own, under seeds that you name.

    python benchmarks/judge.py benchmarks/ranking_shapes.py --arch 7-5-2-2 \
        --seeds 2 3 4 5 6 7 --out judged

No supernet, no search: the contest of `reallocate.py` alone, with the recipe of found
networks. Initial weights come from one network for all (`mmcr.PairedInitHook`): that of
--large, or with all blocks of the config's stage space. Started again, it goes on where
it was; more seeds train what is new. Writes judge.md and judge.json.
"""

import argparse
from pathlib import Path

from mmengine.config import Config, DictAction
from speed_results import hardware, versions

from mmcr.cli import user_errors
from mmcr.cost.complexity import measure
from mmcr.engine.launch import read_config
from mmcr.errors import UserError
from mmcr.models.weights.checkpoint import only_weights
from mmcr.report.contest_table import ContestTable
from mmcr.report.paired import verdict
from mmcr.report.tables import markdown_table, write_results
from mmcr.workflow import recipe
from mmcr.workflow.baseline import understand
from mmcr.workflow.contests.contest import Contest
from mmcr.workflow.contests.finals import most_blocks, unrounded
from mmcr.workflow.contests.study import name_of
from mmcr.workflow.place import alone
from mmcr.workflow.reallocation import image_shape
from mmcr.workflow.screen import Screen
from mmcr.workflow.settings import settings_of


def blocks(text: str) -> list[int]:
    """Of a name such as 7-5-2-2."""
    parts = text.split('-')
    if not all(part.isdecimal() for part in parts):
        raise argparse.ArgumentTypeError(
            f'{text!r}: an architecture is the blocks of its stages, as 7-5-2-2'
        )
    return [int(part) for part in parts]


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='of a detector')
    parser.add_argument(
        '--arch', type=blocks, nargs='+', required=True, help='blocks, as 7-5-2-2'
    )
    parser.add_argument('--seeds', type=int, nargs='+', required=True)
    parser.add_argument(
        '--large', type=blocks, help='blocks of the network that initial weights are of'
    )
    parser.add_argument('--out', type=Path, required=True, help='folder for all of it')
    parser.add_argument('--jobs', type=int, default=1, help='side by side, on a CPU')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    return parser.parse_args()


def judged(args: argparse.Namespace, lock: int) -> tuple[ContestTable, dict]:
    """What the tests say, and MACs and parameters of the detectors."""
    cfg = read_config(args.config, args.cfg_options)
    options = settings_of(cfg.pop('reallocation', {})).options
    base = understand(cfg)
    draft, _ = recipe.stage_draft(base, options)
    large = args.large or most_blocks(draft)['stage_blocks']

    for values in [*args.arch, large]:
        if len(values) != len(base.stage_blocks):
            raise UserError(
                f'The detector has {len(base.stage_blocks)} stages, but '
                f'{"-".join(map(str, values))} has {len(values)}.'
            )

    def of(values: list[int]) -> Config:
        own = tuple(values) == base.stage_blocks
        arch = {} if own else dict(stage_blocks=values)
        network = recipe.network(base, arch, options)
        network.test_evaluator = unrounded(network.test_evaluator, 'bbox')
        return network

    largest = dict(_delete_=True, **of(list(large)).model.backbone)
    networks = {}
    for values in [list(base.stage_blocks), *args.arch]:
        networks[name_of(draft.space.member(values))] = of(values)
    contest = Contest(args.out, networks, largest, Screen([]), jobs=args.jobs)
    contest.run([(name, seed) for seed in args.seeds for name in networks], lock)
    aps = {
        name: {seed: contest.ap(name, seed) for seed in args.seeds} for name in networks
    }
    shape = image_shape(base.cfg)
    costs = {name: measure(cfg, shape) for name, cfg in networks.items()}
    return ContestTable(aps, next(iter(networks))), costs


def page(table: ContestTable, costs: dict) -> str:
    """The results for people, the baseline first."""
    columns = ['blocks', 'MACs', 'parameters', *(f'seed {s}' for s in table.seeds)]
    own, cells, said = costs[table.baseline], [], []
    for name, row in table.aps.items():
        cost, aps = costs[name], [f'{row[seed]:.2f}' for seed in table.seeds]
        macs, params = cost.macs / own.macs, cost.params / own.params
        cells.append([name, f'{macs:.3f}', f'{params:.3f}', *aps])
    for name, difference in table.differences.items():
        seeds = ', '.join(f'{value:+.2f}' for value in difference.by_seed)
        said.append(f'- {verdict(name, table.baseline, difference)} By seed: {seeds}.')
    noise = 'unknown' if table.noise is None else f'{table.noise:.2f} AP'
    return (
        f'{markdown_table(columns, cells, words=(0,))}\n'
        f'AP in points of 100; MACs and parameters of the detector over those of the '
        f'first. The floor, the standard deviation of a paired difference: {noise}.\n\n'
        + '\n'.join(said)
        + '\n'
    )


@user_errors()
def main() -> None:
    args = parse_args()
    only_weights()
    with alone(args.out) as lock:
        table, costs = judged(args, lock)
    text = page(table, costs)
    known = ', '.join(f'{name} {number}' for name, number in versions().items())
    write_results(
        args.out,
        'judge',
        f'{text}\n{hardware("cpu")}. {known}.\n',
        dict(
            aps={name: list(row.values()) for name, row in table.aps.items()},
            seeds=args.seeds,
            config=Path(args.config).name,
        ),
    )
    print(text)


if __name__ == '__main__':
    main()
