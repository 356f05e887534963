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

from mmcr.errors import UserError

#: Share of the bootstrap's results inside an interval.
CONFIDENCE = 0.95
RESAMPLES = 2000


@dataclass(frozen=True)
class Interval:
    """A value with the bounds of its confidence interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f'{self.value:.2f} ({self.low:.2f} to {self.high:.2f})'


class Ranking:
    """Networks trained alone, several seeds each, and what was predicted of them.

    All intervals hold 95%. Those of `tau`, `regret` and `chance` come from a seeded
    bootstrap: of `tau` over networks and seeds, as if other ones had been drawn, of
    the regrets over seeds alone, since the networks are the ones to choose from.
    Seeds are drawn for all networks at once where each was trained with each (paired
    data order and initialisation).

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
        self._rng_seed = seed

    def noise_floor(self) -> Interval:
        """Standard deviation of one network between seeds, pooled over networks.

        Without what a seed does to all networks alike: that changes no ranking.
        """
        networks, seeds = self.alone.shape
        rest = self.alone - self.means[:, None] - self.alone.mean(0) + self.alone.mean()
        freedom = (networks - 1) * (seeds - 1)
        squares = (rest**2).sum()
        tail = (1 - CONFIDENCE) / 2
        return Interval(
            float(np.sqrt(squares / freedom)),
            float(np.sqrt(squares / chi2.ppf(1 - tail, freedom))),
            float(np.sqrt(squares / chi2.ppf(tail, freedom))),
        )

    def spread(self) -> float:
        """Standard deviation of the networks' true AP, the noise taken off."""
        noise = self.noise_floor().value ** 2 / self.alone.shape[1]
        return float(np.sqrt(max(0.0, self.means.var(ddof=1) - noise)))

    def reliability(self) -> float:
        """Share of the variance between the means that is not noise, 0 to 1."""
        return float(self.spread() ** 2 / self.means.var(ddof=1))

    def ceiling(self) -> float:
        """Mean tau of one seed's ranking with that of the other seeds' means."""
        taus = [
            _tau(self.alone[:, seed], np.delete(self.alone, seed, 1).mean(1))
            for seed in range(self.alone.shape[1])
        ]
        return float(np.mean(taus))

    def tau(self, predictor: str) -> Interval:
        """Kendall's tau-b of a predictor with the means over seeds."""
        return self._taus[predictor]

    @cached_property
    def _taus(self) -> dict[str, Interval]:
        # once: table, figure and file ask for them, and they take the time
        return {name: self._tau(values) for name, values in self.predicted.items()}

    def _tau(self, values: np.ndarray) -> Interval:
        networks, seeds = self.alone.shape
        rng = np.random.default_rng(self._rng_seed)
        taus = []
        for _ in range(RESAMPLES):
            rows = rng.integers(networks, size=networks)
            columns = rng.integers(seeds, size=seeds)
            taus.append(_tau(values[rows], self.alone[np.ix_(rows, columns)].mean(1)))
        return _interval(_tau(values, self.means), taus)

    def regret(self, predictor: str) -> Interval:
        """AP by which the best network is ahead of the predictor's first choice.

        Of predictions that tie for the first place, the mean.
        """
        values = self.predicted[predictor]
        chosen = values == values.max()
        return self._behind_best(lambda means: means[chosen].mean())

    def chance(self) -> Interval:
        """The regret of drawing a network at random."""
        return self._behind_best(np.mean)

    def _behind_best(self, got) -> Interval:
        seeds = self.alone.shape[1]
        rng = np.random.default_rng(self._rng_seed)
        draws = rng.integers(seeds, size=(RESAMPLES, seeds))
        # the best stays the best of all seeds: a resample's own best is a lucky one
        best = self.means.argmax()

        def behind(means: np.ndarray) -> float:
            return float(means[best] - got(means))

        return _interval(
            behind(self.means), [behind(self.alone[:, d].mean(1)) for d in draws]
        )


def _tau(x: np.ndarray, y: np.ndarray) -> float:
    tau = kendalltau(x, y).statistic
    # NaN: one of them is constant; rounded, so that a perfect ranking has 1
    return 0.0 if np.isnan(tau) else round(float(tau), 12)


def _interval(value: float, resampled: Sequence[float]) -> Interval:
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(resampled, [tail, 100 - tail])
    return Interval(value, float(low), float(high))
