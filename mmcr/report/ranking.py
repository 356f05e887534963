"""Whether a ranking can be trusted: predictors against networks trained alone.

The question behind every search on shared weights (CR-NAS, Sec. 3), with the spread
over seeds beside it: a ranking of networks that differ by less than one network does
between seeds says nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.stats import chi2, kendalltau
from scipy.stats import t as student_t

from mmcr.errors import UserError

#: How often an interval is to hold the true value.
CONFIDENCE = 0.95
RESAMPLES = 2000


@dataclass(frozen=True)
class Interval:
    """A value with the bounds of its confidence interval, where it has one."""

    value: float
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        if self.low is None:
            return f'{self.value:.2f}'
        return f'{self.value:.2f} ({self.low:.2f} to {self.high:.2f})'


class Ranking:
    """Networks trained alone, several seeds each, and what was predicted of them.

    All intervals are of 95%. That of `tau` comes from a seeded bootstrap over the
    networks, as if other ones had been drawn: what seeds do to the means is in them
    already. Those of the regrets come from the noise floor by Student's t, since the
    networks are the ones to choose from; the best among them is taken as known.

    Args:
        alone: By network, its AP under each seed, in the same order of seeds.
        predicted: By predictor and network, larger is better.
        seed: Of the bootstrap.

    Raises:
        UserError: Fewer than three networks or two seeds, networks that differ in
            their number of seeds, or a predictor that leaves networks out.
    """

    def __init__(
        self,
        alone: Mapping[str, Sequence[float]],
        predicted: Mapping[str, Mapping[str, float]],
        seed: int = 0,
    ) -> None:
        self.networks = list(alone)
        counts = {len(values) for values in alone.values()}
        if len(self.networks) < 3 or len(counts) != 1 or min(counts) < 2:
            raise UserError(
                f'A ranking takes three networks or more, each trained with the same '
                f'seeds, two or more, but got {len(self.networks)} networks of '
                f'{sorted(counts)} seeds. Train the missing ones.'
            )
        for name, values in predicted.items():
            missing = [n for n in self.networks if n not in values]
            if missing:
                raise UserError(
                    f'{name} must predict all networks, but has none for {missing}.'
                )
        self.alone = np.array([alone[n] for n in self.networks], dtype=float)
        self.predicted = {
            name: np.array([values[n] for n in self.networks], dtype=float)
            for name, values in predicted.items()
        }
        self.means = self.alone.mean(1)
        networks, seeds = self.alone.shape
        self._freedom = (networks - 1) * (seeds - 1)
        self._rng_seed = seed

    def noise_floor(self) -> Interval:
        """Standard deviation of one network between seeds, pooled over networks.

        Without what a seed does to all networks alike: that changes no ranking.
        """
        rest = self.alone - self.means[:, None] - self.alone.mean(0) + self.alone.mean()
        tail = (1 - CONFIDENCE) / 2
        freedoms = [self._freedom, *chi2.ppf((1 - tail, tail), self._freedom)]
        return Interval(*np.sqrt((rest**2).sum() / freedoms).tolist())

    def spread(self) -> float:
        """Standard deviation of the networks' true AP, the noise taken off."""
        noise = self.noise_floor().value ** 2 / self.alone.shape[1]
        return float(np.sqrt(max(0.0, self.means.var(ddof=1) - noise)))

    def reliability(self) -> float:
        """Share of the variance between the means that is not noise, 0 to 1."""
        variance = self.means.var(ddof=1)
        return float(self.spread() ** 2 / variance) if variance else 0.0

    def ceiling(self) -> float:
        """Tau to be expected of a predictor that knows the true AP.

        The means are the true AP and noise. Of normal variables that correlate by r,
        the expected tau is 2 / pi * asin(r) (Kendall); r here is the square root of
        the reliability. One study's tau may well be above it.
        """
        return float(2 / np.pi * np.arcsin(np.sqrt(self.reliability())))

    @cached_property
    def taus(self) -> dict[str, Interval]:
        """Kendall's tau-b of each predictor with the means over seeds.

        A predictor that says the same of all networks has 0 and no interval.
        """
        return {name: self._tau(values) for name, values in self.predicted.items()}

    def _tau(self, values: np.ndarray) -> Interval:
        networks = len(self.networks)
        rng = np.random.default_rng(self._rng_seed)
        draws = rng.integers(networks, size=(RESAMPLES, networks))
        # one network many times has no tau, and is no sign of a tau of 0
        taus = np.array([_tau(values[rows], self.means[rows]) for rows in draws])
        if np.isnan(taus).all():
            return Interval(0.0)
        tail = 50 * (1 - CONFIDENCE)
        low, high = np.nanpercentile(taus, [tail, 100 - tail])
        return Interval(_tau(values, self.means), float(low), float(high))

    def regret(self, predictor: str) -> Interval:
        """AP by which the best network is ahead of the predictor's first choice.

        Of predictions that tie for the first place, the mean. There is no interval
        where the first choice is the best measured itself.
        """
        values = self.predicted[predictor]
        chosen = values == values.max()
        return self._behind_best(chosen / chosen.sum())

    def chance(self) -> Interval:
        """The regret of drawing a network at random."""
        networks = len(self.networks)
        return self._behind_best(np.full(networks, 1 / networks))

    def _behind_best(self, weights: np.ndarray) -> Interval:
        """The best measured network before a weighted mean of the networks."""
        contrast = -weights
        contrast[self.means.argmax()] += 1
        if not contrast.any():
            return Interval(0.0)
        value = float(contrast @ self.means)
        # what a seed does to all networks alike is in no contrast
        variance = (contrast**2).sum() / self.alone.shape[1]
        error = self.noise_floor().value * np.sqrt(variance)
        reach = float(student_t.ppf((1 + CONFIDENCE) / 2, self._freedom) * error)
        return Interval(value, value - reach, value + reach)


def _tau(x: np.ndarray, y: np.ndarray) -> float:
    """NaN where one of them is constant."""
    # rounded, so that a perfect ranking has 1
    return round(float(kendalltau(x, y).statistic), 12)
