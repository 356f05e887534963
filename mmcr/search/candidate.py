"""What a searcher asks to have scored, and the answers it gets."""

import json
import random
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import ceil, isfinite

from mmcr.errors import UserError
from mmcr.space import Arch, Budget, SearchSpace


class Candidate(ABC):
    """Something to score: an architecture for every mini-batch of archval."""

    arch: Arch  # what is decided; partial where a searcher leaves choices open

    @abstractmethod
    def arch_for(self, batch_index: int) -> Arch:
        """Returns the complete architecture to run on that mini-batch."""

    @abstractmethod
    def to_json(self) -> dict:
        """Returns what tells this candidate from every other of its search."""


@dataclass(frozen=True)
class Complete(Candidate):
    """A decided architecture: the same for every mini-batch."""

    arch: Arch

    def arch_for(self, batch_index: int) -> Arch:
        return self.arch

    def to_json(self) -> dict:
        return {'arch': self.arch.to_json()}


@dataclass(frozen=True)
class Partial(Candidate):
    """A partial architecture, completed at random anew for every mini-batch.

    The draw depends on the seed, on how much is decided and on the mini-batch, not on
    what is decided: the candidates of one greedy step are compared with the same
    completions (common random numbers). The budget and the costs of the space decide
    which completions there are, so they are part of the candidate.
    """

    arch: Arch
    space: SearchSpace = field(compare=False, repr=False)
    seed: int
    budget: Budget | None = field(init=False)
    costs: str | None = field(init=False, repr=False)

    def __post_init__(self):
        object.__setattr__(self, 'budget', self.space.budget)
        object.__setattr__(self, 'costs', self.space.costs_digest)

    def arch_for(self, batch_index: int) -> Arch:
        rng = random.Random(f'{self.seed}/{len(self.arch)}/{batch_index}')
        return self.space.sample(rng, given=self.arch)

    def to_json(self) -> dict:
        obj = {'arch': self.arch.to_json(), 'seed': self.seed}
        if self.budget is not None:
            # floats, since keys of 16 and 16.0 must be equal
            obj['budget'] = [float(self.budget.low), float(self.budget.high)]
            obj['costs'] = self.costs
        return obj


@dataclass(frozen=True)
class Proposal:
    """A candidate and the slice of archval's mini-batches to score it on."""

    candidate: Candidate
    portion: tuple[float, float] = (0.0, 1.0)  # start and stop, of all batches

    def __post_init__(self):
        start, stop = map(float, self.portion)
        if not 0 <= start < stop <= 1:
            raise ValueError(
                f'0 <= start < stop <= 1 must hold, but got portion={self.portion}'
            )
        object.__setattr__(self, 'portion', (start, stop))

    @property
    def on_all(self) -> bool:
        """Whether the slice is all of archval."""
        return self.portion == (0.0, 1.0)

    @property
    def width(self) -> float:
        """The part of archval that it is scored on, from 0 to 1."""
        start, stop = self.portion
        return stop - start

    @cached_property
    def key(self) -> str:
        """A string that is equal for equal proposals only, in every process."""
        return proposal_key(self.to_json())

    def to_json(self) -> dict:
        return {'candidate': self.candidate.to_json(), 'portion': list(self.portion)}


def batches_before(part: float, num_batches: int) -> int:
    """How many of so many batches begin before a part, from 0 to 1, of them."""
    return ceil(round(part * num_batches, 6))  # parts as 1/11 are not exact


def proposal_key(obj: dict) -> str:
    """Returns `Proposal.key` from the JSON form of a proposal or of a trial."""
    return json.dumps([obj['candidate'], obj['portion']], sort_keys=True)


@dataclass(frozen=True)
class Trial:
    """A scored proposal.

    Raises:
        UserError: The score is not a finite number.
    """

    proposal: Proposal
    score: float  # the figure to maximise
    metrics: dict = field(default_factory=dict)  # None where they are not finite
    # of the search that asked it, from 0; None outside of a search
    round: int | None = field(default=None, compare=False)
    # of joint searches, the names of those that asked it in this round
    asked_by: tuple[str, ...] = field(default=(), compare=False)

    def __post_init__(self):
        if not isfinite(self.score):
            raise UserError(
                f'a score must be a finite number, but {self.proposal.candidate.arch} '
                f'scored {self.score}; check the supernet checkpoint and the metric'
            )
        object.__setattr__(self, 'score', float(self.score))
        metrics = {name: _plain(value) for name, value in self.metrics.items()}
        object.__setattr__(self, 'metrics', metrics)

    def to_json(self) -> dict:
        return {**self.proposal.to_json(), **self.result()}

    def result(self) -> dict:
        """Returns, as JSON, the arguments of a trial but for its proposal."""
        obj = {'score': self.score, 'metrics': self.metrics}
        if self.round is not None:
            obj['round'] = self.round
        if self.asked_by:
            obj['asked_by'] = list(self.asked_by)
        return obj


def _plain(value):
    """As JSON can hold it, which knows no scalars of numpy and torch, and no NaN."""
    if isinstance(value, Mapping):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if hasattr(value, 'tolist'):  # an array or a scalar
        return _plain(value.tolist())
    if isinstance(value, float) and not isfinite(value):
        return None
    return value
