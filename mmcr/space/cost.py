"""Additive costs, counted exactly.

An architecture costs the sum of what its values cost, so the members of a space
under a budget can be counted, listed and drawn without enumerating the product
of the choices: dynamic programming over the cost spent so far.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import isfinite
from numbers import Integral, Real

from mmcr.errors import UserError

Options = Sequence[Sequence[tuple[int, Fraction]]]


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


class Members:
    """The members of a space as a tree whose level `i` decides choice `i`.

    Args:
        options: For every choice its values, each with what it costs.
        budget: What the costs along a path must add up to; None for no limit.
    """

    def __init__(self, options: Options, budget: Budget | None):
        self.options = options
        self.budget = budget
        self._counts = {}

    def count(self, level: int = 0, spent: Fraction = Fraction(0)) -> int:
        """Returns how many members lie below a node that has `spent` so far."""
        if level == len(self.options):
            return int(self.budget is None or spent in self.budget)
        node = level, spent
        if node not in self._counts:
            self._counts[node] = sum(
                self.count(level + 1, spent + cost) for _, cost in self.options[level]
            )
        return self._counts[node]

    def walk(self, level: int = 0, spent: Fraction = Fraction(0)) -> Iterator[tuple]:
        """Yields the members in order, and enters no branch that holds none."""
        if level == len(self.options):
            yield ()
            return
        for value, cost in self.options[level]:
            if self.count(level + 1, spent + cost):
                for rest in self.walk(level + 1, spent + cost):
                    yield value, *rest

    def nth(self, index: int) -> tuple[int, ...]:
        """Returns the member that `walk` yields after `index` others."""
        values, spent = [], Fraction(0)
        for level, options in enumerate(self.options):
            for value, cost in options:
                below = self.count(level + 1, spent + cost)
                if index < below:
                    values.append(value)
                    spent += cost
                    break
                index -= below
        return tuple(values)

    def costs(self) -> set[Fraction]:
        """Returns every cost that a path has, within the budget or not."""
        sums = {Fraction(0)}
        for options in self.options:
            sums = {spent + cost for spent in sums for _, cost in options}
        return sums
