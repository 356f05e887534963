"""Two objectives at once: a high score and a low cost.

Sorting and selection after K. Deb et al., "A Fast and Elitist Multiobjective Genetic
Algorithm: NSGA-II", IEEE Transactions on Evolutionary Computation 2002, Sec. III.
"""

from collections.abc import Sequence
from math import inf
from typing import NamedTuple


class Point(NamedTuple):
    """A score to be high and a cost to be low."""

    score: float
    cost: float


def pareto_front(points: Sequence[Point]) -> list[int]:
    """Returns the indices of the points that no other dominates, the cheapest first.

    Equal points do not dominate each other, and are on the front together.
    """
    front = []
    order = sorted(range(len(points)), key=lambda i: (points[i].cost, -points[i].score))
    for i in order:
        last = points[front[-1]] if front else Point(-inf, inf)
        if points[i].score > last.score or points[i] == last:
            front.append(i)
    return front


def select(points: Sequence[Point], count: int) -> list[int]:
    """Returns the indices of up to `count` points, front by front.

    Of the front that does not fit as a whole, those with the most room around them.
    """
    selected, left = [], list(range(len(points)))
    while left and len(selected) < count:
        front = [left[j] for j in pareto_front([points[i] for i in left])]
        left = sorted(set(left) - set(front))
        room = count - len(selected)
        if len(front) > room:
            distances = _crowding_distances([points[i] for i in front])
            widest = sorted(range(len(front)), key=lambda j: -distances[j])
            front = [front[j] for j in widest[:room]]
        selected += front
    return selected


def _crowding_distances(front: Sequence[Point]) -> list[float]:
    """How far apart, in parts of the extent of a front, the neighbours of each are."""
    first, last = front[0], front[-1]
    extents = [abs(b - a) or 1 for a, b in zip(first, last)]
    inner = [
        sum(abs(b - a) / extent for a, b, extent in zip(before, after, extents))
        for before, after in zip(front, front[2:])
    ]
    return [inf, *inner, inf][: len(front)]
