"""The scores of a search as a picture."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmcr.report.history import History, Scored
from mmcr.report.sketch import COLOURS, INK, QUIET, RULE
from mmcr.space import Arch

WIDTH = 4.8  # of figures, in inches: text can be read on a telephone
TICKS = 16  # labels that fit below the axis
DOTS = dict(s=26, linewidths=1, zorder=3)
BEST, OTHERS = dict(DOTS, color=COLOURS[3]), dict(DOTS, color=COLOURS[1])
HOLLOW = dict(DOTS, facecolors='white', edgecolors=QUIET, zorder=2)
BASELINE = dict(marker='D', color=INK, zorder=4)


def score_figure(
    history: History,
    score: str,
    scale: float,
    baseline: Arch | None = None,
    bars: Mapping[Arch, tuple[float, float]] | None = None,
) -> Figure:
    """Scores by step where the search has several, and by rank where it has one.

    Args:
        history: With one step at least.
        score: Its name.
        scale: What scores are multiplied by; 100: points.
        baseline: The architecture to mark by a diamond.
        bars: Ends of error bars, as scores are shown, where ranks are.
    """
    figure, axes = _axes(score, scale)
    if len(history.steps) > 1:
        best = {scored.arch for scored in history.ranking[:1]}
        for x, step in enumerate(history.steps, start=1):
            # in the last step nobody goes on: there the result stands out
            kept = best if step.kept is None else step.kept
            for is_kept, look in ((False, HOLLOW), (True, BEST)):
                dots = [s.score for s in step.scored if (s.arch in kept) == is_kept]
                axes.scatter([x] * len(dots), [scale * dot for dot in dots], **look)
        count = len(history.steps)
        axes.set_xticks(range(1, count + 1, -(-count // TICKS)))
        axes.set_xlim(0, count + 1)
        label = '{round} (filled: {kept})'.format_map(history.about)
        axes.set_xlabel(label, parse_math=False)
    else:
        ranked = next(iter(history.steps[0].rankings.values()))
        scores = [scale * scored.score for scored in ranked]
        axes.scatter(range(2, len(scores) + 1), scores[1:], **OTHERS)
        axes.scatter([1], scores[:1], **BEST)
        for x, scored in enumerate(ranked, start=1):
            if ends := (bars or {}).get(scored.arch):
                axes.vlines(x, *ends, color=QUIET, linewidth=1, zorder=1)
            if scored.arch == baseline:
                axes.scatter([x], [scale * scored.score], **BASELINE, label='baseline')
                axes.legend(loc='upper right', frameon=False, fontsize=8)
        axes.set_xlabel('rank')
        axes.xaxis.get_major_locator().set_params(integer=True)
    return figure


def front_figure(history: History, score: str, scale: float) -> Figure:
    """Score against cost, with the front marked; arguments as of `score_figure`."""
    figure, axes = _axes(score, scale)
    front = history.front

    def points(scored: Sequence[Scored]) -> tuple[list[float], list[float]]:
        costs = [history.costs[each.arch] for each in scored]
        return costs, [scale * each.score for each in scored]

    axes.scatter(*points([s for s in history.ranking if s not in front]), **HOLLOW)
    axes.step(*points(front), where='post', color=COLOURS[3], linewidth=1)
    axes.scatter(*points(front), **BEST)
    label = f'{history.unit} (filled: no other has less for as high a score)'
    axes.set_xlabel(label, parse_math=False)
    return figure


def _axes(score: str, scale: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, 2.6), layout='constrained')
    axes = figure.add_subplot()
    label = score + (' (points)' if scale == 100 else '')
    axes.set_ylabel(label, color=INK, parse_math=False)  # a name, not a formula
    axes.grid(axis='y', **RULE)
    axes.spines[['top', 'right']].set_visible(False)
    return figure, axes
