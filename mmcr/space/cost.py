"""Additive costs, counted exactly.

An architecture costs the sum of what its values cost, so the members of a space
under a budget can be counted, listed and drawn without enumerating the product
of the choices: dynamic programming over the cost spent so far. Where there are too
many sums for that, members are drawn by rejection.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from math import ceil, floor, isfinite, lcm
from numbers import Integral, Real
from random import Random

from mmcr.errors import UserError

Options = Sequence[Sequence[tuple[int, Fraction]]]

MOST_COUNTED = 300_000  # nodes of the tree that are opened: a second or so
MOST_DRAWS = 10_000  # paths, of which one should be a member


class BudgetError(UserError):
    """A budget that makes no sense, or that no architecture meets."""


def exact(number: Real) -> Fraction:
    """Returns a cost as a fraction, so that sums neither drift nor depend on order.

    A float stands for the simplest fraction within its rounding error: 0.1 + 0.2
    is 3/10.

    Raises:
        BudgetError: `number` is not a finite number.
    """
    if isinstance(number, Integral):
        return Fraction(int(number))
    if not isinstance(number, Real) or not isfinite(number):
        raise BudgetError(f'costs and budgets are finite numbers, but got {number!r}')
    return Fraction(float(number)).limit_denominator(10**9)


def plain(number: Fraction) -> float:
    return int(number) if number.denominator == 1 else float(number)


@dataclass(frozen=True)
class Budget:
    """The costs from `low` to `high`, both included.

    Raises:
        BudgetError: `low` is above `high`, or one of them is not finite.
    """

    low: float
    high: float

    def __post_init__(self):
        if exact(self.low) > exact(self.high):
            raise BudgetError(
                f'low <= high must hold, but got (low={self.low}, high={self.high})'
            )

    @classmethod
    def exactly(cls, cost: float) -> 'Budget':
        return cls(cost, cost)

    def __contains__(self, cost) -> bool:
        return exact(self.low) <= exact(cost) <= exact(self.high)

    def __str__(self) -> str:
        if self.low == self.high:
            return f'exactly {self.low}'
        return f'between {self.low} and {self.high}'

    def to_json(self) -> dict[str, float]:
        return {'low': self.low, 'high': self.high}


class FeasibleSet:
    """The paths of a tree whose costs meet a budget; level `i` decides choice `i`.

    Args:
        rows: For every choice its values, each with what it costs in whole units.
        low: Units that a path must cost at least.
        high: Units that it may cost.
        unit: What a unit is.
    """

    def __init__(
        self,
        rows: Sequence[Sequence[tuple[int, int]]],
        low: int,
        high: int,
        unit: Fraction,
    ):
        self._rows, self._low, self._high, self._unit = rows, low, high, unit
        # of what the choices from each level on cost together, and how many paths
        self._least, self._most, self._paths = [0], [0], [1]
        for row in reversed(rows):
            costs = [cost for _, cost in row]
            self._least.insert(0, self._least[0] + min(costs))
            self._most.insert(0, self._most[0] + max(costs))
            self._paths.insert(0, self._paths[0] * len(row))
        self._counts = [{} for _ in rows]
        self._counted = 0

    @classmethod
    def within(cls, budget: Budget | None, options: Options) -> 'FeasibleSet':
        """Makes the set of all paths whose costs add up to something in a budget."""
        if budget is None:
            free = [[(value, 0) for value, _ in row] for row in options]
            return cls(free, 0, 0, Fraction(1))
        unit = Fraction(1, lcm(*(c.denominator for row in options for _, c in row)))
        return cls(
            [[(value, int(cost / unit)) for value, cost in row] for row in options],
            ceil(exact(budget.low) / unit),
            floor(exact(budget.high) / unit),
            unit,
        )

    def agreeing(self, given: Mapping[int, int]) -> 'FeasibleSet':
        """Returns those with some values given, by level."""
        rows = [
            [pair for pair in row if given.get(level, pair[0]) == pair[0]]
            for level, row in enumerate(self._rows)
        ]
        return FeasibleSet(rows, self._low, self._high, self._unit)

    @cached_property
    def size(self) -> int | None:
        """How many there are; None where the sums of costs are too many to count."""
        try:
            return self._count()
        except _TooManySums:
            return None

    @cached_property
    def nearest_costs(self) -> list[Fraction]:
        """If it is empty the costs next to the budget, below and above; else none.

        A set that has no `size` may be empty all the same.
        """
        below, above, opened, nodes = set(), set(), set(), [(0, 0)]
        while nodes:
            level, spent = node = nodes.pop()
            least, most = self._ends(*node)
            if self._low <= least <= self._high or self._low <= most <= self._high:
                return []
            if most < self._low:
                below.add(most)
            elif self._high < least:
                above.add(least)
            elif node not in opened:
                if len(opened) >= MOST_COUNTED:
                    return []
                opened.add(node)
                nodes += [(level + 1, spent + cost) for _, cost in self._rows[level]]
        return [end(of) * self._unit for end, of in ((max, below), (min, above)) if of]

    def walk(self, level: int = 0, spent: int = 0) -> Iterator[tuple]:
        """Yields the members in order; only where they have a `size`."""
        if level == len(self._rows):
            yield ()
            return
        for value, cost in self._rows[level]:
            if self._count(level + 1, spent + cost):
                for rest in self.walk(level + 1, spent + cost):
                    yield value, *rest

    def draw(self, rng: Random) -> tuple[int, ...] | None:
        """Returns one of them, all with the same probability.

        Where they have no `size`, paths are drawn until one is a member; None where
        that takes too long.
        """
        if self.size is not None:
            return self._nth(rng.randrange(self.size))
        for _ in range(MOST_DRAWS):
            path = [rng.choice(row) for row in self._rows]
            if self._low <= sum(cost for _, cost in path) <= self._high:
                return tuple(value for value, _ in path)
        return None

    def _ends(self, level: int, spent: int) -> tuple[int, int]:
        """Returns the least and the most that paths below a node cost."""
        return spent + self._least[level], spent + self._most[level]

    def _count(self, level: int = 0, spent: int = 0) -> int:
        """Returns how many members lie below a node that has `spent` so far."""
        least, most = self._ends(level, spent)
        if self._low <= least and most <= self._high:
            return self._paths[level]
        if most < self._low or self._high < least:
            return 0
        counts = self._counts[level]
        if spent not in counts:
            self._counted += 1
            if self._counted > MOST_COUNTED:
                raise _TooManySums
            counts[spent] = sum(
                self._count(level + 1, spent + cost) for _, cost in self._rows[level]
            )
        return counts[spent]

    def _nth(self, index: int) -> tuple[int, ...]:
        """Returns the member that `walk` yields after `index` others."""
        values, spent = [], 0
        for level, row in enumerate(self._rows):
            for value, cost in row:
                below = self._count(level + 1, spent + cost)
                if index < below:
                    values.append(value)
                    spent += cost
                    break
                index -= below
        return tuple(values)


class _TooManySums(Exception):
    """To count members would take too many steps."""
