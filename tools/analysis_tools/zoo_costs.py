"""Counts what the paper's detectors cost and writes the table of the docs."""

import argparse
from pathlib import Path

from mmcr.cli import user_errors
from mmcr.files import write_bytes
from mmcr.report.zoo_costs import costs_page, measure_zoo

ROOT = Path(__file__).parents[2]


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        '--out',
        type=Path,
        default=ROOT / 'docs/costs.md',
        help='the page to write (default: docs/costs.md)',
    )
    return parser.parse_args()


@user_errors()
def main() -> None:
    args = parse_args()
    costs = []
    for cost in measure_zoo(ROOT):
        costs.append(cost)
        print(f'{cost.name}: {cost.gmacs:.2f} G', flush=True)
    write_bytes(args.out, costs_page(costs).encode())


if __name__ == '__main__':
    main()
