"""Whether a supernet's scores can tell its networks apart, from the images alone."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mmcr.errors import UserError
from mmcr.scoring.bootstrap import tell_apart
from mmcr.scoring.evaluator import CandidateEvaluator
from mmcr.space import Arch, SearchSpace

RANDOM = 5  # members beside the reference paths
SIGNIFICANT = 0.05
CONFIDENCE = 95
HELP = (
    'More images of archval, more epochs of the supernet, share="prefix" or a wider '
    'space may help.'
)


@dataclass(frozen=True)
class Gate:
    """What a bootstrap over archval's images says of a few networks.

    Attributes:
        aps: By name, AP in points of 100.
        noise: Standard deviation of a difference of two of them, from the images.
        p: That networks of equal AP differ as these do.
        images: Of archval.
    """

    aps: Mapping[str, float]
    noise: float
    p: float
    images: int

    @property
    def is_open(self) -> bool:
        """Whether they can be told apart."""
        return self.p < SIGNIFICANT

    def __str__(self) -> str:
        aps = ', '.join(f'{name} {ap:.2f}' for name, ap in self.aps.items())
        can = 'can' if self.is_open else 'cannot'
        return (
            f'Gate: {self.images} images {can} tell {len(self.aps)} networks of this '
            f'supernet apart (p = {self.p:.2g}): {aps} AP, where a difference moves by '
            f'{self.noise:.2f} from images to images.'
        )


def look(
    candidates: CandidateEvaluator,
    space: SearchSpace,
    references: Mapping[str, Arch],
    seed: int = 0,
) -> Gate:
    """Scores the reference paths and a few random members.

    Args:
        candidates: What scores.
        space: Of the search, from which members are drawn.
        references: By name.
        seed: Of the draws.

    Raises:
        UserError: The score is not AP.
    """
    named = dict(references)
    rng = random.Random(f'{seed}/gate')
    for _ in range(10 * RANDOM):
        arch = space.sample(rng)
        if arch not in named.values():
            named[f'random {len(named) - len(references) + 1}'] = arch
        if len(named) == len(references) + RANDOM:
            break
    aps = 100 * candidates.resampled(list(named.values()), seed=seed)
    observed, resampled = aps[:, 0], aps[:, 1:]
    # a single network has no other to be told from
    p = tell_apart(observed, resampled) if len(named) > 1 else 1.0
    rest = resampled - resampled.mean(0)  # without what is common to all
    noise = float(np.sqrt(2 * rest.var(1).sum() / max(1, len(named) - 1)))
    images = len(candidates.archval.dataset)
    return Gate(dict(zip(named, observed.tolist())), noise, p, images)


def check_open(gate: Gate, rule: str) -> str | None:
    """What to say where networks cannot be told apart.

    Args:
        gate: What was seen.
        rule: 'warn' or 'stop'.

    Raises:
        UserError: They cannot, and the rule is to stop.
    """
    if gate.is_open:
        return None
    message = f'{gate} What a search ranks here is mostly chance. {HELP}'
    if rule == 'stop':
        raise UserError(f'{message} gate="warn" (--gate warn) searches all the same.')
    return message


def not_told_apart(
    candidates: CandidateEvaluator, archs: Sequence[Arch], seed: int = 0
) -> dict:
    """Which of the best of a search its images cannot tell from the very best.

    Args:
        candidates: What scores.
        archs: The best, the very best first.
        seed: Of the resamples.

    Returns:
        JSON: how many of them were looked at (`of`), of how many images, and each of
        those that cannot be told apart with what it is behind and the 95% interval,
        in AP of 100 points.
    """
    aps = 100 * candidates.resampled(archs, seed=seed)
    behind = aps[:1] - aps
    tail = (100 - CONFIDENCE) / 2
    low, high = np.percentile(behind[:, 1:], [tail, 100 - tail], axis=1)
    same = [
        dict(
            arch=arch.to_json(),
            behind=float(behind[i, 0]),
            low=float(low[i]),
            high=float(high[i]),
        )
        for i, arch in enumerate(archs)
        if low[i] <= 0
    ]
    return dict(of=len(archs), images=len(candidates.archval.dataset), same=same)
