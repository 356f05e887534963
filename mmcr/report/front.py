"""The front of a search: which network to take at which cost."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmcr.report.score_figure import BASELINE, BEST, HOLLOW, OTHERS, WIDTH
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


@dataclass(frozen=True)
class Front:
    """All that a search has scored, and what of it to take.

    Attributes:
        points: One at least on the front.
        costs: For which a network is recommended, in those of the baseline.
        unit: That a cost is in.
        own: Of the points the baseline's path.
        trained: The user's networks to be marked, by name their cost, in those of the
            baseline, and AP in points of 100.
    """

    points: Sequence[Point]
    costs: Sequence[float]
    unit: str
    own: Point | None = None
    trained: Mapping[str, Sequence[float]] = field(default_factory=dict)

    @property
    def recommended(self) -> dict[float, Point]:
        return recommended(self.points, self.costs)

    @property
    def best(self) -> Point:
        """That of the run; of equal ones the one that costs least."""
        return max(self.points, key=lambda point: (point.score, -point.cost))

    @property
    def members(self) -> list[Point]:
        """Those on the front, by place."""
        on_it = (point for point in self.points if point.place is not None)
        return sorted(on_it, key=lambda point: point.place)

    def said(self, point: Point) -> str:
        """What a point is, beside one of the front."""
        taken = self.recommended.items()
        costs = [f'{cost:g}' for cost, each in taken if each == point]
        said = [f'recommended up to {", ".join(costs)}'] if costs else []
        said += ["the run's best"] * (point == self.best)
        return '; '.join(said + ['the baseline'] * (point == self.own))

    def picture(self) -> Figure:
        """AP against cost, the front, what is recommended and what was trained."""
        figure = Figure(figsize=(WIDTH, 3.4), layout='constrained')
        axes = figure.add_subplot()
        _dots(axes, [p for p in self.points if p.place is None], HOLLOW)
        axes.step(*_places(self.members), where='post', color=COLOURS[3], linewidth=1)
        _dots(axes, self.members, OTHERS)
        _dots(axes, self.recommended.values(), BEST, 'recommended')
        _dots(axes, [self.own] if self.own else [], BASELINE, 'baseline')
        for name, (cost, ap) in self.trained.items():
            axes.scatter([cost], [ap], marker='x', color=QUIET, zorder=4)
            axes.annotate(
                name,
                (cost, ap),
                xytext=(4, 4),
                textcoords='offset points',
                fontsize=8,
                parse_math=False,
            )
        axes.set_xlabel(f'{self.unit}, in those of the baseline', parse_math=False)
        axes.set_ylabel('AP on archval (points)', color=INK)
        axes.grid(axis='y', **RULE)
        axes.spines[['top', 'right']].set_visible(False)
        axes.legend(loc='lower right', frameon=False, fontsize=8)
        return figure

    @classmethod
    def from_json(cls, record: Mapping) -> 'Front':
        """Of what `write_front_page` wrote."""
        points = [Point(**each) for each in record['front'] + record['others']]
        own = record['baseline'] and Point(**record['baseline'])
        costs = [float(cost) for cost in record['recommended']]
        return cls(points, costs, record['unit'], own, record['trained'])


#: What a table of the front says of its columns.
COLUMNS = (
    'Cost: {unit} of the backbone, in those of the baseline. AP on archval as the '
    'supernet has the path, in points of 100; expected: without the luck of these '
    'images. Recommended is the highest expected AP of the front up to a cost; the '
    "run's best has the highest AP at any cost, partly by luck."
)


def write_front_page(folder: str | Path, front: Front) -> str:
    """Writes ``front.md``, ``front.json`` and ``front.png``; returns the Markdown text.

    Args:
        folder: Where to write; made if there is none.
    """
    cells = [
        [
            str(point.place),
            point.text,
            f'{point.cost:.2f}',
            f'{100 * point.score:.2f}',
            f'{100 * point.expected:.2f}',
            front.said(point),
        ]
        for point in front.members
    ]
    columns = ['front/', 'architecture', 'cost', 'AP', 'expected', '']
    table = markdown_table(columns, cells, words=(1, 5))
    text = f'{table}\n{COLUMNS.format(unit=front.unit)}\n'
    if front.trained:
        marked = (f'{n} {c:.2f}, {ap:.2f}' for n, (c, ap) in front.trained.items())
        text += f'\nTrained by you, cost and AP: {"; ".join(marked)}.\n'
    advice = front.recommended.items()
    record = dict(
        unit=front.unit,
        front=[_record(point) for point in front.members],
        others=[_record(each) for each in front.points if each.place is None],
        recommended={f'{cost:g}': _record(point) for cost, point in advice},
        best_of_run=_record(front.best),
        baseline=front.own and _record(front.own),
        trained={name: list(pair) for name, pair in front.trained.items()},
    )
    write_results(folder, 'front', text, record)
    front.picture().savefig(Path(folder) / 'front.png', dpi=180)
    return text


def _record(point: Point) -> dict:
    return {**asdict(point), 'arch': dict(point.arch)}


def _dots(axes: Axes, points: Sequence[Point], look: dict, label: str = '') -> None:
    if points:
        axes.scatter(*_places(points), label=label or None, **look)


def _places(points: Sequence[Point]) -> tuple[list[float], list[float]]:
    points = list(points)
    return [p.cost for p in points], [100 * p.score for p in points]
