"""The scores of a search as a picture."""

from matplotlib.figure import Figure

from mmcr.analysis.course import Course
from mmcr.analysis.sketch import COLOURS, INK, QUIET

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
        axes.set_xlabel(
            'rung (filled: those that go on to the next, which has more images)'
            if course.kind == 'halving'
            else 'choices decided (filled: the best, which the next step extends)'
        )
    else:
        ranked = next(iter(course.steps[0].rankings.values()))
        scores = [scale * scored.score for scored in ranked]
        axes.scatter(range(2, len(scores) + 1), scores[1:], color=COLOURS[1], **marks)
        axes.scatter([1], scores[:1], color=COLOURS[3], **marks)
        axes.set_xlabel('rank')
        axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_ylabel(score + (' (points)' if scale == 100 else ''), color=INK)
    axes.grid(axis='y', color='#e3e7ea', linewidth=0.8)
    axes.spines[['top', 'right']].set_visible(False)
    return figure
