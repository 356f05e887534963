r"""Draws AP against multiply-accumulates, baselines and reallocated (CR-NAS, Fig. 5).

    python tools/analysis_tools/zoo_figure.py --out zoo.png
    python tools/analysis_tools/zoo_figure.py --out mine.png \
        --runs work_dirs/my_detector work_dirs/my_other_detector
    python tools/analysis_tools/zoo_figure.py --out top1.png --top1 docs/top1.csv

Without --runs, of the paper's published figures; with them, of what
tools/reallocate.py has compared. With --top1, AP against ImageNet's top-1 (Fig. 6).
"""

import argparse
import csv
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from mmengine.fileio import load

from mmcr.checks import is_list
from mmcr.cli import place, user_errors
from mmcr.errors import UserError
from mmcr.files import check_output, read_json
from mmcr.report.sketch import COLOURS, INK, QUIET, RULE

FORMATS = '.png', '.svg', '.pdf'
ROOT = Path(__file__).resolve().parents[2]
PUBLISHED = 'Published (Liang et al., ICLR 2020)'  # a model's entry in a metafile
LOOKS = dict(
    baseline=dict(marker='o', color=QUIET),
    reallocated=dict(marker='D', color=COLOURS[3]),
)
COLUMNS = 'name', 'top-1', 'AP'
#: Of a network its MACs in G or its top-1, and its AP, these two in points of 100.
Point = tuple[float, float]
Named = tuple[str, Point]


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--detector',
        default='faster_rcnn',
        choices=('faster_rcnn', 'mask_rcnn'),
        help='of the published ones (default: faster_rcnn)',
    )
    given = parser.add_mutually_exclusive_group()
    given.add_argument(
        '--runs',
        nargs='+',
        type=place,
        metavar='WORK_DIR',
        help='of tools/reallocate.py',
    )
    given.add_argument(
        '--top1',
        type=place,
        metavar='TABLE',
        help='CSV, or JSON with a list of objects, of the columns name, top-1 and AP, '
        'and source if there are several',
    )
    parser.add_argument(
        '--out', type=place, required=True, help='new file: png, svg or pdf'
    )
    return parser.parse_args()


def published(detector: str) -> dict[str, tuple[Point, Point]]:
    """By backbone, the baseline and the reallocated network as the paper has them."""
    points = {}
    for model in load(ROOT / 'configs' / detector / 'metafile.yml')['Models']:
        said = model.get(PUBLISHED, {})
        if 'FLOPs (G)' in said:
            (result, *_) = said['Results']
            points[model['Name']] = said['FLOPs (G)'], result['Metrics']['box AP']
    return {
        name.split('_')[1]: (points[name], points[found])
        for name in points
        if (found := name.replace('_', '_cr-', 1)) in points
    }


def compared(work_dirs: Sequence[str]) -> dict[str, tuple[Point, Point]]:
    """By name of the run, the baseline and the network that was found.

    Raises:
        UserError: A run has no comparison, or one without AP.
    """
    pairs = {}
    for work_dir in work_dirs:
        path = Path(work_dir, 'result/comparison.json')
        if not path.is_file():
            raise UserError(
                f'A run that is drawn must have been compared, but there is no {path}. '
                f'Name work dirs that tools/reallocate.py has finished.'
            )
        networks = read_json(path, 'a comparison')['networks'][:2]
        both = [(each['macs'] / 1e9, each['points']['AP']) for each in networks]
        if None in (ap for _, ap in both):
            raise UserError(f'Networks are drawn by their AP, but {path} has none.')
        name = Path(work_dir).resolve().name
        pairs[str(work_dir) if name in pairs else name] = tuple(both)
    return pairs


def table_of(path: str) -> dict[str, list[Named]]:
    """By source, which may be empty: names with top-1 and AP.

    Raises:
        UserError: A row lacks a column, or its number is none from 0 to 100.
        OSError: The table cannot be read.
    """
    if Path(path).suffix == '.json':
        rows = read_json(path, 'a table')
    else:
        text = Path(path).read_text(encoding='utf-8-sig', errors='replace')
        try:
            rows = list(csv.DictReader(text.splitlines()))
        except csv.Error:  # no text
            rows = []
    if not is_list(rows) or not rows:
        raise UserError(f'--top1 must name a table with rows, but {path} has none.')
    points = defaultdict(list)
    for number, row in enumerate(rows, 1):
        try:
            name, *both = (row[column] for column in COLUMNS)
            point = tuple(map(float, both))
        except (KeyError, TypeError, ValueError):
            point = ()
        if not point or not all(0 <= value <= 100 for value in point):
            raise UserError(
                f'A row of --top1 must have {", ".join(COLUMNS)}, the last two from 0 '
                f'to 100, but row {number} of {path} is {row!r}.'
            )
        points[str(row.get('source') or '')].append((str(name), point))
    return points


def figure(pairs: dict[str, tuple[Point, Point]]) -> Figure:
    """A line for the baselines and one for the others, by rising cost."""
    drawn, axes = _empty('multiply-accumulates (G)')
    names = sorted(pairs, key=lambda name: pairs[name][0])
    for kind, (label, look) in enumerate(LOOKS.items()):
        points = [pairs[name][kind] for name in names]
        axes.plot(*zip(*points), label=label, linewidth=1, **look)
    _name(axes, [(name, pairs[name][1]) for name in names])
    axes.legend(loc='lower right', frameon=False)
    return drawn


def top1_figure(table: Mapping[str, Sequence[Named]]) -> Figure:
    """A marker for each network, with the look of its source."""
    drawn, axes = _empty('top-1 on ImageNet (%)')
    for (source, points), look in zip(table.items(), cycle(LOOKS.values())):
        axes.plot(*zip(*(p for _, p in points)), label=source, linestyle='', **look)
    _name(axes, [each for points in table.values() for each in points])
    if any(table):
        axes.legend(loc='lower right', frameon=False)
    return drawn


def _empty(label: str) -> tuple[Figure, Axes]:
    drawn = Figure(figsize=(5.4, 3.6), layout='constrained')
    axes = drawn.add_subplot()
    axes.margins(0.12)
    axes.set_xlabel(label)
    axes.set_ylabel('AP (points)')
    axes.grid(axis='y', **RULE)
    axes.spines[['top', 'right']].set_visible(False)
    return drawn, axes


def _name(axes: Axes, named: Sequence[Named]) -> None:
    """Above the marker; beside it where another is near on the other side."""
    width, height = axes.dataLim.width, axes.dataLim.height
    for name, (x, y) in named:
        near = {
            a > x
            for _, (a, b) in named
            if 0 < abs(a - x) < 0.15 * width and abs(b - y) < 0.06 * height
        }
        side = 0 if len(near) != 1 else -1 if True in near else 1
        axes.annotate(
            name,
            (x, y),
            xytext=(7 * side, 0 if side else 6),
            textcoords='offset points',
            ha=('center', 'left', 'right')[side],
            va='center' if side else 'baseline',
            fontsize=8,
            color=INK,
            parse_math=False,
        )


@user_errors()
def main() -> None:
    args = parse_args()
    check_output('--out', args.out)
    if Path(args.out).suffix not in FORMATS:
        raise UserError(
            f'--out must end in one of {", ".join(FORMATS)}, but got {args.out}.'
        )
    if args.top1:
        drawn = top1_figure(table_of(args.top1))
    else:
        drawn = figure(compared(args.runs) if args.runs else published(args.detector))
    drawn.savefig(args.out, dpi=160)


if __name__ == '__main__':
    main()
