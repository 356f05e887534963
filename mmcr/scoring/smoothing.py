"""Scores smoothed over a space: candidates that share choices inform each other.

The best of many raw scores is partly the luckiest on one set of images. A Gaussian
process takes that luck off: what a score says beyond its neighbours' counts for less,
the more the scores of neighbours scatter.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve
from scipy.optimize import minimize

from mmcr.space import Arch

FEW = 4  # values of a choice that have no order, such as kinds of blocks
STARTS = ((0.5, 0.1, 0.4), (0.1, 0.5, 0.4), (0.1, 0.1, 0.8))  # shares of the variance
MOST = 1000  # the kernel is a dense matrix


def smoothed(scores: Mapping[Arch, float]) -> dict[Arch, float]:
    """The scores' expected values.

    The mean of a Gaussian process whose kernel is a sum over the choices, plus a
    product over them for what they do together, plus noise. Their shares are those of
    the highest marginal likelihood. Distances within a choice are ranks of its values,
    or equal where it has few.

    Args:
        scores: Of complete architectures of one space, on the same images. Of more
            than `MOST` the best go in; the others keep their scores.

    Returns:
        The same architectures; the same scores where there are too few to tell.
    """
    best = sorted(scores, key=scores.__getitem__, reverse=True)[:MOST]
    values = np.array([scores[arch] for arch in best])
    scale = values.std() if len(best) else 0.0
    if len(best) < 4 or not scale > 0:
        return dict(scores)
    mean = values.mean()
    kernels = _kernels(best)
    fits = [_fit(kernels, (values - mean) / scale, start) for start in STARTS]
    shares = min(fits, key=lambda fit: fit.fun).x
    weights = np.exp(shares)
    signal = weights[0] * kernels[0] + weights[1] * kernels[1]
    factor = cho_factor(signal + (weights[2] + 1e-8) * np.eye(len(best)))
    expected = mean + signal @ cho_solve(factor, values - mean)
    return {**scores, **dict(zip(best, expected.tolist()))}


def _kernels(archs: Sequence[Arch]) -> tuple[np.ndarray, np.ndarray]:
    """Of each choice alone, and of all together; ``archs x archs`` each."""
    names = sorted(archs[0])
    near = []
    for name in names:
        column = [arch[name] for arch in archs]
        known = sorted(set(column))
        ranks = np.array([known.index(value) for value in column])
        distances = np.abs(ranks[:, None] - ranks[None])
        if len(known) <= FEW:
            distances = np.sign(distances)
        near.append(np.exp(-distances * 3.0 / max(1, len(known) - 1)))
    return np.mean(near, 0), np.prod(near, 0) ** (1 / max(1, len(names) // 4))


def _fit(kernels: tuple[np.ndarray, np.ndarray], values: np.ndarray, start: tuple):
    """The logarithms of the shares with the highest marginal likelihood."""

    def unlikely(shares: np.ndarray) -> float:
        weights = np.exp(shares)
        covariance = weights[0] * kernels[0] + weights[1] * kernels[1]
        covariance[np.diag_indices_from(covariance)] += weights[2] + 1e-8
        try:
            factor, lower = cho_factor(covariance)
        except LinAlgError:
            return 1e10
        solved = cho_solve((factor, lower), values)
        return float(values @ solved / 2 + np.log(np.diag(factor)).sum())

    bounds = [(-12.0, 4.0)] * 3
    return minimize(unlikely, np.log(start), method='L-BFGS-B', bounds=bounds)
