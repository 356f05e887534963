"""Two objectives at once: a high score and a low cost.

Sorting and selection after K. Deb et al., "A Fast and Elitist Multiobjective Genetic
Algorithm: NSGA-II", IEEE Transactions on Evolutionary Computation 2002, Sec. III.
"""

from collections.abc import Iterator, Sequence
from math import inf
from typing import NamedTuple


class Point(NamedTuple):
    """A score to be high and a cost to be low."""

    score: float
    cost: float


def pareto_front(points: Sequence[Point]) -> list[int]:
    """Returns the indices of the points that no other dominates, the cheapest first.

    A point dominates another when it is no worse in score and cost, and better in
    one of them; so equal points are on the front together.
    """
    front = []
    for i in sorted(
        range(len(points)), key=lambda i: (points[i].cost, -points[i].score)
    ):
        last = points[front[-1]] if front else Point(-inf, inf)
        if points[i].score > last.score or points[i] == last:
            front.append(i)
    return front


def select(points: Sequence[Point], count: int) -> list[int]:
    """Returns the indices of up to `count` points, front by front.

    Of the front that does not fit as a whole, those with the most room around them.
    """
    selected = []
    for front in _fronts(points):
        room = count - len(selected)
        if len(front) > room:
            distances = _crowding_distances([points[i] for i in front])
            widest = sorted(range(len(front)), key=lambda j: -distances[j])
            front = [front[j] for j in widest[:room]]
        selected += front
        if len(selected) == count:
            break
    return selected


def _fronts(points: Sequence[Point]) -> Iterator[list[int]]:
    """The front of all, then that of the others, and so on."""
    left = list(range(len(points)))
    while left:
        front = [left[j] for j in pareto_front([points[i] for i in left])]
        yield front
        left = sorted(set(left) - set(front))


def _crowding_distances(front: Sequence[Point]) -> list[float]:
    """How far apart the neighbours of each are, in parts of the front's extent.

    Args:
        front: By cost, and so by score.
    """
    first, last = front[0], front[-1]
    extents = [abs(b - a) or 1 for a, b in zip(first, last)]
    inner = [
        sum(abs(b - a) / extent for a, b, extent in zip(before, after, extents))
        for before, after in zip(front, front[2:])
    ]
    return [inf, *inner, inf][: len(front)]
