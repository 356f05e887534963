"""Which path a supernet trains next: a function of the seed and the iteration.

So all ranks draw the same path, and a resumed training needs nothing but the seed.
"""

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import lcm
from random import Random

from mmcr.checks import check_integer
from mmcr.errors import UserError
from mmcr.space.arch import Arch
from mmcr.space.cost import Budget, exact
from mmcr.space.space import SearchSpace

MOST_SUMS = 20_000  # costs of architectures that are told apart
GRID = 1000  # into how many steps the range of costs is cut where there are more


class PathSampler(ABC):
    """Draws paths of a space, a function of seed and iteration."""

    uses_costs = True  # whether draws depend on what the space's values cost

    @abstractmethod
    def draw(self, space: SearchSpace, seed: int, iteration: int) -> Arch:
        """Returns the path of one iteration, a member of `space`.

        Raises:
            UserError: This kind of stream does not exist for the space.
        """


@dataclass(frozen=True)
class UniformSampler(PathSampler):
    """Every member is equally likely at every iteration (CR-NAS, Sec. 3.2; SPOS)."""

    uses_costs = False

    def draw(self, space: SearchSpace, seed: int, iteration: int) -> Arch:
        return space.sample(Random(f'{seed}/{iteration}'))


@dataclass(frozen=True)
class StrictlyFairSampler(PathSampler):
    """No value of a choice is trained more often than another (FairNAS, ICCV 2021).

    Of a choice of K values, iterations 0 to K - 1 train each once, in a random order,
    so do K to 2K - 1, and so on; choices are shuffled independently. FairNAS updates
    the weights once in K paths, as ``accumulative_counts=K`` does.
    """

    uses_costs = False

    def draw(self, space: SearchSpace, seed: int, iteration: int) -> Arch:
        _check_unbounded(space, self)

        def value(name: str, values: tuple[int, ...]) -> int:
            turn, position = divmod(iteration, len(values))
            return Random(f'{seed}/{name}/{turn}').sample(values, len(values))[position]

        return Arch({c.name: value(c.name, c.values) for c in space.choices})


@dataclass(frozen=True)
class CostUniformSampler(PathSampler):
    """Spreads paths evenly over their cost.

    The range of costs is cut into equal bins; of those that have a path each is
    equally likely, and in it each path. Uniform draws would crowd around the middle.
    DetNAS trains by seven bins from 290M to 360M multiply-accumulates, paths outside
    of them not at all.

    Args:
        bins: How many parts the range has.
        low: Where the range begins; ``None``: at the least cost.
        high: Where it ends; ``None``: at the greatest cost.

    Raises:
        UserError: `bins` is below 1, or `low` is not below `high`.
    """

    bins: int = 10
    low: float | None = None
    high: float | None = None

    def __post_init__(self):
        check_integer('bins', self.bins)
        ends = [exact(end) for end in (self.low, self.high) if end is not None]
        if len(ends) == 2 and ends[0] >= ends[1]:
            raise UserError(
                f'low < high must hold, but got (low={self.low}, high={self.high})'
            )

    def draw(self, space: SearchSpace, seed: int, iteration: int) -> Arch:
        _check_unbounded(space, self)
        rng = Random(f'{seed}/{iteration}')
        parts = cost_bins(space, self.bins, self.low, self.high)
        return rng.choice(parts).sample(rng)


@dataclass(frozen=True)
class SandwichSampler(PathSampler):
    """Both ends and paths in between (Universally Slimmable Networks, ICCV 2019).

    Of every `paths` iterations the first trains the largest path, the second the
    smallest, the others what is drawn uniformly. The weights are updated once for all
    of them where the optimizer's ``accumulative_counts`` is `paths`, as published.

    Args:
        paths: Of a round, both ends among them.

    Raises:
        UserError: `paths` is below 3.
    """

    paths: int = 4

    def __post_init__(self):
        check_integer('paths', self.paths, at_least=3)

    def draw(self, space: SearchSpace, seed: int, iteration: int) -> Arch:
        _check_unbounded(space, self)
        smallest, largest = ends(space)
        position = iteration % self.paths
        if position < 2:
            return (largest, smallest)[position]
        return space.sample(Random(f'{seed}/{iteration}'))


def ends(space: SearchSpace) -> tuple[Arch, Arch]:
    """The members that cost least and most of a space without a budget.

    Raises:
        UserError: Its choices cost nothing, so that it has no such ends.
    """
    if space.cost is None:
        raise UserError(
            'The smallest and the largest path are those that cost least and most, but '
            'the choices of this space, dilations for example, have no cost: use '
            'mmcr.UniformSampler, and no distillation'
        )

    def end(pick: Callable) -> Arch:
        return Arch(
            {
                c.name: pick(c.values, key=lambda v, c=c: exact(space.cost(c.name, v)))
                for c in space.choices
            }
        )

    return end(min), end(max)


@lru_cache(maxsize=8)  # of spaces by identity: a training draws from one
def cost_bins(
    space: SearchSpace, count: int, low: float | None = None, high: float | None = None
) -> list[SearchSpace]:
    """The members of each bin of `CostUniformSampler` that has any, cheapest first.

    A bin includes its lower end, the last one its upper end as well. Of more than
    `MOST_SUMS` different costs, those of values are rounded to a grid: the `GRID`-th
    part of all that the space's costs span. A path may then miss its bin, and so the
    range, by half a step for each of its choices.

    Raises:
        UserError: The space has no cost, or all of its members cost the same, or
            none is in the range.
    """
    if space.cost is None:
        raise UserError(
            'CostUniformSampler needs choices that cost something, but those of this '
            'space, dilations for example, have no cost: use mmcr.UniformSampler'
        )
    rows = [[exact(space.cost(c.name, v)) for v in c.values] for c in space.choices]
    unit = Fraction(1, lcm(*(each.denominator for row in rows for each in row)))
    if _sums(rows, MOST_SUMS) is None:
        unit = sum(max(row) - min(row) for row in rows) / GRID
    in_units = SearchSpace(
        space.choices, lambda name, value: round(exact(space.cost(name, value)) / unit)
    )
    sums = _sums([round(each / unit) for each in row] for row in rows)
    if len(sums) == 1:
        raise UserError(
            'CostUniformSampler needs paths that differ in cost, but all of this '
            'space cost the same: use mmcr.UniformSampler'
        )
    start = min(sums) if low is None else exact(low) / unit
    stop = max(sums) if high is None else exact(high) / unit
    parts = defaultdict(list)
    for cost in sums:
        if start <= cost <= stop and start < stop:
            part = (cost - start) * count // (stop - start)
            parts[min(part, count - 1)].append(cost)
    if not parts:
        ends = (f'{float(end * unit):g}' for end in (min(sums), max(sums)))
        raise UserError(
            f'CostUniformSampler needs paths that cost from {low} to {high}, but those '
            f'of this space cost from {" to ".join(ends)}: give another range'
        )
    return [
        in_units.under(Budget(min(costs), max(costs)))
        for _, costs in sorted(parts.items())
    ]


def _sums(rows: Iterable[Iterable], limit: int | None = None) -> set | None:
    """All sums of one number of each row; None for more than `limit`."""
    sums = {0}
    for row in rows:
        sums = {before + each for before in sums for each in row}
        if limit is not None and len(sums) > limit:
            return None
    return sums


def _check_unbounded(space: SearchSpace, sampler: PathSampler) -> None:
    if space.budget is not None:
        raise UserError(
            f'{type(sampler).__name__} draws from spaces without a budget, as '
            f'supernets have them, but this one costs {space.budget}: use '
            f'mmcr.UniformSampler'
        )
