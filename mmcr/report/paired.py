"""Networks trained under the same seeds, compared by their paired differences.

A seed does to all networks much the same (`mmcr.PairedInitHook`), so that differences
within a seed vary less than the networks do. AP in points of 100 throughout.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.stats import t as student_t

from mmcr.report.ranking import CONFIDENCE, Interval
from mmcr.search import sign_flip_p_value

#: How often a difference of the size of `Difference.visible` is seen.
POWER = 0.8


@dataclass(frozen=True)
class Difference:
    """What one network is ahead of another by, under each seed of both.

    Attributes:
        by_seed: AP of the one minus AP of the other.
    """

    by_seed: Sequence[float]

    @cached_property
    def interval(self) -> Interval:
        """The mean with its interval by Student's t; one seed has none."""
        mean, freedom = float(np.mean(self.by_seed)), len(self.by_seed) - 1
        if not freedom:
            return Interval(mean)
        reach = float(student_t.ppf((1 + CONFIDENCE) / 2, freedom)) * self._error
        return Interval(mean, mean - reach, mean + reach)

    @cached_property
    def p(self) -> float:
        """Two-sided p of the exact sign-flip test."""
        differences = self.by_seed
        if sum(differences) < 0:
            differences = [-each for each in differences]
        return min(1.0, 2 * sign_flip_p_value(differences))

    @property
    def least_p(self) -> float:
        """The p of seeds that all agree; below 0.05 from six seeds on."""
        return 2.0 ** (1 - len(self.by_seed))

    @cached_property
    def visible(self) -> float | None:
        """The true difference that as many seeds would see with `POWER`.

        By Student's t and the deviation of these differences; one seed has none.
        """
        seeds = len(self.by_seed)
        if seeds == 1:
            return None
        return visible(seeds) * float(np.std(self.by_seed, ddof=1))

    @property
    def kind(self) -> str:
        """``ahead``, ``behind`` or ``undecided``: whether the interval leaves out 0."""
        interval = self.interval
        if interval.low is None or interval.low <= 0 <= interval.high:
            return 'undecided'
        return 'ahead' if interval.value > 0 else 'behind'

    @property
    def _error(self) -> float:
        """Standard error of the mean."""
        return float(np.std(self.by_seed, ddof=1) / np.sqrt(len(self.by_seed)))

    def __str__(self) -> str:
        """Such as ``+1.22 AP (+0.67 to +1.77, p = 0.031, 6 seeds)``."""
        value, seeds = self.interval, len(self.by_seed)
        if value.low is None:
            return f'{value.value:+.2f} AP (1 seed)'
        return (
            f'{value.value:+.2f} AP ({value.low:+.2f} to {value.high:+.2f}, '
            f'p = {self.p:.2g}, {seeds} seeds)'
        )


def visible(seeds: int) -> float:
    """The difference that `seeds` see with `POWER`, in standard deviations of one."""
    if seeds < 2:
        return float('inf')
    quantiles = student_t.ppf([(1 + CONFIDENCE) / 2, POWER], seeds - 1)
    return float(quantiles.sum() / np.sqrt(seeds))


def floor(aps: Mapping[str, Sequence[float]]) -> float | None:
    """Standard deviation of a paired difference, pooled over networks.

    Args:
        aps: By network, its AP under each seed, in the same order; None where a
            network was not trained with one.

    Returns:
        None: fewer than two networks share two seeds.
    """
    table = np.array(
        [[np.nan if a is None else a for a in row] for row in aps.values()]
    )
    squares = freedom = 0.0
    # networks drop out of a run-off: those with the same seeds are pooled
    for columns in np.unique(~np.isnan(table), axis=0):
        rows = table[(~np.isnan(table) == columns).all(1)][:, columns]
        networks, seeds = rows.shape
        if networks > 1 and seeds > 1:
            centred = rows - rows.mean(0) - rows.mean(1, keepdims=True) + rows.mean()
            squares += float((centred**2).sum())
            freedom += (networks - 1) * (seeds - 1)
    return float(np.sqrt(2 * squares / freedom)) if freedom else None


def verdict(name: str, baseline: str, difference: Difference) -> str:
    """In a few sentences what a comparison says and what to do.

    Args:
        name: Of the network that was found.
        baseline: Of the one that it is compared with.
        difference: The first's AP minus the other's.
    """
    seeds = len(difference.by_seed)
    if seeds == 1:
        return (
            f'{name} − {baseline}: {difference}. One seed cannot tell a difference '
            f'from noise: keep {baseline}, or train with more.'
        )
    if difference.kind == 'undecided':
        return (
            f'No difference between {name} and {baseline} that {seeds} seeds can see '
            f'(they would have seen one of {difference.visible:.2f} AP): '
            f'{difference}. Keep {baseline}.'
        )
    if difference.kind == 'ahead':
        said = f'{name} is ahead of {baseline}: {difference}.'
    else:
        said = f'{name} is behind {baseline}: {difference}. Keep {baseline}.'
    if difference.least_p > 1 - CONFIDENCE:
        said += (
            f' {seeds} seeds cannot be significant by themselves: their p is '
            f'{difference.least_p:.2g} at the least; that of six is 0.031.'
        )
    return said
