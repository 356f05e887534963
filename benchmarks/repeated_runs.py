"""Is what reallocate.py finds ahead each time? Whole runs on images drawn anew.

Every master seed draws its own images (of the embedded data set) and decides all
chance of supernet, search and trainings. Started again, it goes on. Writes
repeated_runs.md and .json to --out.
"""

import argparse
import json
import shlex
import subprocess
import sys
import time
from pathlib import Path

from speed_results import hardware, versions

from mmcr.cli import DEMOS, user_errors
from mmcr.errors import UserError
from mmcr.files import write_json
from mmcr.report.paired import Difference
from mmcr.report.tables import markdown_table, write_results

ROOT = Path(__file__).resolve().parents[1]
CONFIG, SHAPES = DEMOS['demo']


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        '--config',
        type=Path,
        default=ROOT / 'configs/demo' / CONFIG,
        help="of a detector (default: the demo's)",
    )
    parser.add_argument(
        '--shapes',
        default=SHAPES,
        help='arguments of make_shapes.py but its --seed (default: %(default)r); empty '
        'for a config with data of its own, found from the current folder',
    )
    parser.add_argument(
        '--options', default='', help='more arguments of reallocate.py, as one text'
    )
    parser.add_argument(
        '--seeds', type=int, nargs='+', required=True, help='master seeds'
    )
    parser.add_argument('--out', type=Path, required=True)
    return parser.parse_args()


def run(args: argparse.Namespace, seed: int) -> dict:
    """One whole run under a master seed; what its comparison and the clock say."""
    folder = (args.out / f'seed_{seed}').resolve()
    folder.mkdir(parents=True, exist_ok=True)
    clock, result = folder / 'seconds.json', folder / 'steps/result/comparison.json'
    spent = json.loads(clock.read_bytes()) if clock.exists() else 0
    was_done, begin = result.exists(), time.monotonic()
    chance = ['--cfg-options', f'randomness.seed={seed}']
    given = [str(args.config.resolve()), '--work-dir', str(folder / 'steps')]
    tools = {'reallocate': [*given, *shlex.split(args.options), *chance]}
    if args.shapes:
        drawn = [*shlex.split(args.shapes), '--seed', str(seed)]
        tools = {'dataset_converters/make_shapes': drawn, **tools}
    for tool, arguments in tools.items():
        command = [sys.executable, str(ROOT / 'tools' / f'{tool}.py'), *arguments]
        try:
            failed = subprocess.run(
                command, cwd=folder if args.shapes else None
            ).returncode
        finally:
            if not was_done:
                write_json(clock, spent + round(time.monotonic() - begin))
        if failed:
            raise UserError(f'The run of seed {seed} has failed, see above.')
    record = json.loads(result.read_bytes())
    return dict(record, seed=seed, seconds=json.loads(clock.read_bytes()))


def table(runs: list[dict]) -> str:
    """One line per run, and what they say together."""
    columns = ['master seed', 'baseline', 'found', 'MACs', 'AP baseline', 'AP found']
    columns += ['found − baseline by seed', 'mean', 'verdict', 'minutes']
    cells, means = [], []
    for each in runs:
        baseline, found, *_ = each['networks']
        means.append(each['difference']['value'])
        cells.append(
            [
                str(each['seed']),
                *(str(network['stage_blocks']) for network in (baseline, found)),
                f'{found["macs"] / baseline["macs"]:.3f}',
                *(f'{network["points"]["AP"]:.2f}' for network in (baseline, found)),
                ', '.join(f'{value:+.2f}' for value in each['difference']['by_seed']),
                f'{means[-1]:+.2f}',
                each['kind'],
                f'{each["seconds"] / 60:.1f}',
            ]
        )
    every = [value for each in runs for value in each['difference']['by_seed']]
    return (
        f'{markdown_table(columns, cells, words=(1, 2, 6, 8))}\n'
        f'Over master seeds, by the mean of each: {Difference(means)}. Found is ahead '
        f'under {sum(value > 0 for value in every)} of {len(every)} seeds that judge. '
        f'MACs are those of the detector, found over baseline.\n'
    )


@user_errors()
def main() -> None:
    args = parse_args()
    runs = []
    for seed in args.seeds:
        runs.append(run(args, seed))
        known = ', '.join(f'{name} {number}' for name, number in versions().items())
        write_results(
            args.out,
            'repeated_runs',
            f'{table(runs)}\n{hardware("cpu")}. {known}.\n',
            dict(
                runs=runs,
                config=args.config.name,
                shapes=args.shapes,
                options=args.options,
            ),
        )
    print(table(runs))


if __name__ == '__main__':
    main()
