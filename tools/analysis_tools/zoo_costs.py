"""Counts what the paper's detectors cost and writes the table of the docs."""

import argparse
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config
from mmengine.fileio import load

from mmcr.cli import place, user_errors
from mmcr.cost.complexity import Complexity, measure
from mmcr.files import check_output, write_bytes

ROOT = Path(__file__).resolve().parents[2]
PAGE_FILE = ROOT / 'docs/costs.md'
SPEED_FILE = ROOT / 'benchmarks/results/deployed_speed.md'
SHAPE = (800, 1088)  # the paper's, height and width
CONVENTION = 'paper'
PUBLISHED = 'Published (Liang et al., ICLR 2020)'  # a model's entry in a metafile
DETECTORS = {'faster_rcnn': 'Faster R-CNN + FPN', 'mask_rcnn': 'Mask R-CNN + FPN'}
PAGE = """\
# Costs

Made by `python tools/analysis_tools/zoo_costs.py`; do not edit.

Published figures are those of CR-NAS (Liang et al., ICLR 2020), in G; it has none for
ResNeXt. Ours count the same configs. How the paper counted is not published: the
convention below is the one that fits its figures. `tools/analysis_tools/get_flops.py`
gives the parts of each sum, in this convention or in mmengine's plain one.
"""
SPEED = """\
## Time on a CPU

Equal multiply-accumulates need not be equal time. Backbone and FPN with ResNet-50 at
800 x 1333, one image, one thread: seconds of the baseline, then ratios to it, the
median and the range over five rounds
([how and on what](../benchmarks/results/deployed_speed.md)).
"""


@dataclass(frozen=True)
class ZooCost:
    """One detector of the zoo.

    Attributes:
        folder: Of its config, a key of `DETECTORS`.
        name: Of its config, without ``.py``.
        published: The paper's figure in G; ``None`` where it has none.
        complexity: Our count.
    """

    folder: str
    name: str
    published: float | None
    complexity: Complexity

    @property
    def gmacs(self) -> float:
        return self.complexity.macs / 1e9

    @property
    def baseline(self) -> str:
        """Name of the config without reallocation, its own for a baseline."""
        return self.name.replace('_cr-', '_')


def measure_zoo(root: str | Path) -> Iterator[ZooCost]:
    """Counts the Faster R-CNN and Mask R-CNN detectors of the 1x schedule.

    Args:
        root: The folder of ``model-index.yml``, which names them.
    """
    for metafile in load(Path(root, 'model-index.yml'))['Import']:
        folder = Path(metafile).parent.name
        if folder not in DETECTORS:
            continue
        for model in load(Path(root, metafile))['Models']:
            if model['Name'].endswith('_1x_coco'):
                cfg = Config.fromfile(Path(root, model['Config']))
                yield ZooCost(
                    folder,
                    model['Name'],
                    model.get(PUBLISHED, {}).get('FLOPs (G)'),
                    measure(cfg, SHAPE, CONVENTION),
                )


def costs_page(costs: Iterable[ZooCost]) -> str:
    """The page of the documentation, in Markdown; a table for each detector.

    At the end is what `SPEED_FILE` says of 800 x 1333.
    """
    costs = list(costs)
    lines = [PAGE]
    for folder, detector in DETECTORS.items():
        mine = {cost.name: cost for cost in costs if cost.folder == folder}
        if not mine:
            continue
        lines += [
            f'## {detector}\n',
            '| config | published | ours | difference | CR - baseline, published '
            '| CR - baseline, ours | parameters (M) |',
            '| --- |' + ' ---: |' * 6,
            *(_row(cost, mine[cost.baseline]) for cost in mine.values()),
            '',
            next(iter(mine.values())).complexity.conditions,
            '',
        ]
    if SPEED_FILE.is_file():  # a wheel has no benchmarks
        measured = SPEED_FILE.read_text().split('## 800 x 1333\n\n')[1]
        lines += [SPEED, measured.split('\n## ')[0]]
    return '\n'.join(lines)


def _row(cost: ZooCost, baseline: ZooCost) -> str:
    cells = [f'[{cost.name}](../configs/{cost.folder}/{cost.name}.py)']
    if cost.published is None:
        cells += ['', f'{cost.gmacs:.2f}', '']
    else:
        difference = cost.gmacs / cost.published - 1
        cells += [f'{cost.published}', f'{cost.gmacs:.2f}', f'{difference:+.2%}']
    reallocated = cost is not baseline
    has_pair = reallocated and None not in (cost.published, baseline.published)
    cells += [
        f'{cost.published - baseline.published:+.1f}' if has_pair else '',
        f'{cost.gmacs - baseline.gmacs:+.2f}' if reallocated else '',
        f'{cost.complexity.params / 1e6:.2f}',
    ]
    return f'| {" | ".join(cells)} |'


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        '--out',
        type=lambda text: Path(place(text)),
        default=PAGE_FILE,
        help='the page to write (default: docs/costs.md)',
    )
    return parser.parse_args()


@user_errors()
def main() -> None:
    args = parse_args()
    if args.out.resolve() != PAGE_FILE:  # which this is there to renew
        check_output('--out', args.out)
    costs = []
    for cost in measure_zoo(ROOT):
        costs.append(cost)
        print(f'{cost.name}: {cost.gmacs:.2f} G', flush=True)
    write_bytes(args.out, costs_page(costs).encode())


if __name__ == '__main__':
    main()
