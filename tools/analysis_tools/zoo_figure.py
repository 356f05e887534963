r"""Draws AP against multiply-accumulates, baselines and reallocated (CR-NAS, Fig. 5).

    python tools/analysis_tools/zoo_figure.py --out zoo.png
    python tools/analysis_tools/zoo_figure.py --out mine.png \
        --runs work_dirs/my_detector work_dirs/my_other_detector

Without --runs, of the paper's published figures; with them, of what
tools/reallocate.py has compared.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from mmengine.fileio import load

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
#: Of a network its MACs in G, and its AP in points of 100.
Point = tuple[float, float]


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
    parser.add_argument(
        '--runs', nargs='+', metavar='WORK_DIR', help='of tools/reallocate.py'
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


def figure(pairs: dict[str, tuple[Point, Point]]) -> Figure:
    """A line for the baselines and one for the others, by rising cost."""
    drawn = Figure(figsize=(5.4, 3.6), layout='constrained')
    axes = drawn.add_subplot()
    names = sorted(pairs, key=lambda name: pairs[name][0])
    for kind, (label, look) in enumerate(LOOKS.items()):
        points = [pairs[name][kind] for name in names]
        axes.plot(*zip(*points), label=label, linewidth=1, **look)
    for name in names:
        axes.annotate(
            name,
            pairs[name][1],
            xytext=(0, 6),
            textcoords='offset points',
            ha='center',
            fontsize=8,
            color=INK,
            parse_math=False,
        )
    axes.margins(0.12)
    axes.set_xlabel('multiply-accumulates (G)')
    axes.set_ylabel('AP (points)')
    axes.grid(axis='y', **RULE)
    axes.spines[['top', 'right']].set_visible(False)
    axes.legend(loc='lower right', frameon=False)
    return drawn


@user_errors()
def main() -> None:
    args = parse_args()
    check_output('--out', args.out)
    if Path(args.out).suffix not in FORMATS:
        raise UserError(
            f'--out must end in one of {", ".join(FORMATS)}, but got {args.out}.'
        )
    pairs = compared(args.runs) if args.runs else published(args.detector)
    figure(pairs).savefig(args.out, dpi=160)


if __name__ == '__main__':
    main()
