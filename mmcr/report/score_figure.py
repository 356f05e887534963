"""The scores of a search as a picture."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmcr.report.course import NUMBERED, Course, Scored
from mmcr.report.sketch import COLOURS, INK, QUIET

TICKS = 18  # labels that fit below the axis


def score_figure(course: Course, score: str, scale: float) -> Figure:
    """Scores by step where the search has steps, and by rank where it has none.

    Args:
        course: With one step at least.
        score: Its name.
        scale: What scores are multiplied by; 100: points.
    """
    figure = Figure(figsize=(9, 3.4), layout='constrained')
    axes = figure.add_subplot()
    marks = dict(s=26, linewidths=1, zorder=2)
    if len(course.steps) > 1:
        best = course.ranking[:1]
        for x, step in enumerate(course.steps, start=1):
            # in the last step nobody goes on: there the result stands out
            kept = {s.arch for s in best} if step.kept is None else step.kept
            others = [scale * s.score for s in step.scored if s.arch not in kept]
            scores = [scale * s.score for s in step.scored if s.arch in kept]
            axes.scatter(
                [x] * len(others),
                others,
                facecolors='white',
                edgecolors=QUIET,
                **marks,
            )
            axes.scatter([x] * len(scores), scores, color=COLOURS[3], **marks)
        labels = [course.label(step) for step in course.steps]
        every = -(-len(labels) // TICKS)
        axes.set_xticks(range(1, len(labels) + 1, every), labels[::every])
        axes.set_xlim(0, len(labels) + 1)
        meanings = dict(
            rung='those that go on to the next, which has more images',
            generation='parents of the next',
        )
        name = NUMBERED.get(course.kind, 'choices decided')
        meaning = meanings.get(name, 'the best, which the next step extends')
        axes.set_xlabel(f'{name} (filled: {meaning})')
    else:
        ranked = next(iter(course.steps[0].rankings.values()))
        scores = [scale * scored.score for scored in ranked]
        axes.scatter(range(2, len(scores) + 1), scores[1:], color=COLOURS[1], **marks)
        axes.scatter([1], scores[:1], color=COLOURS[3], **marks)
        axes.set_xlabel('rank')
        axes.xaxis.get_major_locator().set_params(integer=True)
    _finish(axes, score, scale)
    return figure


def front_figure(course: Course, score: str, scale: float) -> Figure:
    """Score against cost, with the front marked.

    Args:
        course: With costs, and one candidate at least.
        score: Its name.
        scale: As in `score_figure`.
    """
    figure = Figure(figsize=(9, 3.4), layout='constrained')
    axes = figure.add_subplot()
    front = course.front
    others = [each for each in course.ranking if each not in front]

    def points(scored: Sequence[Scored]) -> tuple[list[float], list[float]]:
        costs = [course.costs[each.arch] for each in scored]
        return costs, [scale * each.score for each in scored]

    marks = dict(s=26, linewidths=1)
    axes.scatter(*points(others), facecolors='white', edgecolors=QUIET, **marks)
    costs, scores = points(front)
    axes.step(costs, scores, where='post', color=COLOURS[3], linewidth=1)
    axes.scatter(costs, scores, color=COLOURS[3], zorder=3, **marks)
    axes.set_xlabel(f'{course.unit} (filled: no other has less at that score or more)')
    _finish(axes, score, scale)
    return figure


def _finish(axes: Axes, score: str, scale: float) -> None:
    axes.set_ylabel(score + (' (points)' if scale == 100 else ''), color=INK)
    axes.grid(axis='y', color='#e3e7ea', linewidth=0.8)
    axes.spines[['top', 'right']].set_visible(False)
