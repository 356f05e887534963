"""The front of a search: which network to take at which cost."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmcr.report.score_figure import BEST, HOLLOW, OTHERS
from mmcr.report.sketch import COLOURS, INK, QUIET, RULE
from mmcr.report.tables import markdown_table, write_results

MARGIN = 1e-9  # of a cost, for sums that were rounded


@dataclass(frozen=True)
class Point:
    """An architecture that was scored.

    Attributes:
        arch: Of its choices the values, by name.
        score: AP on archval, from 0 to 1.
        expected: Without the luck of these images.
        cost: In those of the baseline.
        place: Its folder, ``front/PLACE`` of the search; ``None``: not on the front.
    """

    arch: Mapping[str, int]
    score: float
    expected: float
    cost: float
    place: int | None = None

    @property
    def text(self) -> str:
        return ' '.join(map(str, self.arch.values()))


def recommended(points: Sequence[Point], costs: Sequence[float]) -> dict[float, Point]:
    """By cost, the point of the front with the highest expected score up to it.

    A cost below that of all points has none.
    """
    found = {}
    for cost in sorted(costs):
        within = [
            point
            for point in points
            if point.place is not None and point.cost <= cost * (1 + MARGIN)
        ]
        if within:
            found[cost] = max(within, key=lambda point: point.expected)
    return found


def write_front_page(
    folder: str | Path,
    points: Sequence[Point],
    costs: Sequence[float],
    unit: str,
    own: Point | None = None,
    trained: Mapping[str, tuple[float, float]] | None = None,
) -> str:
    """Writes ``front.md``, ``front.json`` and ``front.png``.

    Args:
        folder: Where to write; made if there is none.
        points: All that were scored, one at least on the front.
        costs: For which a network is recommended, in those of the baseline.
        unit: That a cost is in.
        own: Of them the baseline's path.
        trained: Networks to be marked, by name their cost, in those of the baseline,
            and AP in points of 100.

    Returns:
        The Markdown text.
    """
    advice = recommended(points, costs)
    best = max(points, key=lambda point: point.score)
    front = sorted(
        (point for point in points if point.place is not None),
        key=lambda point: point.place,
    )
    cells = [
        [
            str(point.place),
            point.text,
            f'{point.cost:.2f}',
            f'{100 * point.score:.2f}',
            f'{100 * point.expected:.2f}',
            '; '.join(_said(point, advice, best, own)),
        ]
        for point in front
    ]
    columns = ['front/', 'architecture', 'cost', 'AP', 'expected', '']
    text = (
        f'{markdown_table(columns, cells, words=(1, 5))}\n'
        f'Cost: {unit} of the backbone, in those of the baseline. AP on archval as '
        f'the supernet has the path, in points of 100; expected: without the luck of '
        f'these images. Recommended is the highest expected AP of the front up to a '
        f"cost; the run's best has the highest AP at any cost, partly by luck.\n"
    )
    record = dict(
        unit=unit,
        front=[_record(point) for point in front],
        recommended={f'{cost:g}': _record(point) for cost, point in advice.items()},
        best_of_run=_record(best),
        baseline=own and _record(own),
        trained={name: list(pair) for name, pair in (trained or {}).items()},
    )
    write_results(folder, 'front', text, record)
    figure = front_picture(points, advice, unit, own, trained or {})
    figure.savefig(Path(folder) / 'front.png', dpi=150)
    return text


def _said(
    point: Point, advice: Mapping[float, Point], best: Point, own: Point | None
) -> list[str]:
    costs = [f'{cost:g}' for cost, taken in advice.items() if taken is point]
    said = [f'recommended up to {", ".join(costs)}'] if costs else []
    said += ["the run's best"] * (point is best)
    return said + ['the baseline'] * (point is own)


def _record(point: Point) -> dict:
    return {**asdict(point), 'arch': dict(point.arch)}


def front_picture(
    points: Sequence[Point],
    advice: Mapping[float, Point],
    unit: str,
    own: Point | None,
    trained: Mapping[str, tuple[float, float]],
) -> Figure:
    """AP against cost, the front, what is recommended and what was trained."""
    figure = Figure(figsize=(6, 4), layout='constrained')
    axes = figure.add_subplot()
    front = sorted((p for p in points if p.place is not None), key=lambda p: p.place)
    _dots(axes, [p for p in points if p.place is None], HOLLOW)
    axes.step(*_places(front), where='post', color=COLOURS[3], linewidth=1)
    _dots(axes, front, OTHERS)
    _dots(axes, advice.values(), BEST, 'recommended')
    _dots(axes, [own] if own else [], dict(marker='D', color=INK, zorder=4), 'baseline')
    for name, (cost, ap) in trained.items():
        axes.scatter([cost], [ap], marker='x', color=QUIET, zorder=4)
        axes.annotate(
            name, (cost, ap), xytext=(4, 4), textcoords='offset points', fontsize=8
        )
    axes.set_xlabel(f'{unit}, in those of the baseline', parse_math=False)
    axes.set_ylabel('AP on archval (points)', color=INK)
    axes.grid(axis='y', **RULE)
    axes.spines[['top', 'right']].set_visible(False)
    axes.legend(loc='lower right', frameon=False, fontsize=8)
    return figure


def _dots(axes: Axes, points: Sequence[Point], look: dict, label: str = '') -> None:
    if points:
        axes.scatter(*_places(points), label=label or None, **look)


def _places(points: Sequence[Point]) -> tuple[list[float], list[float]]:
    points = list(points)
    return [p.cost for p in points], [100 * p.score for p in points]
