"""Decide one choice after the other and keep the best few (CR-NAS, Sec. 3.2)."""

from collections.abc import Generator

from mmcr.checks import check_integer
from mmcr.search.candidate import Candidate, Complete, Partial, Proposal, Trial
from mmcr.search.searcher import Rounds, Searcher, ranked
from mmcr.space import Arch, SearchSpace

Decision = Generator[list[Proposal], list[Trial], list[Candidate]]


class GreedySearcher(Searcher):
    """Extends the `k` best partial architectures by every value of the next choice.

    Under a budget, an extension that no member completes is left out.

    Args:
        space: Its choices are decided in their order.
        k: How many partial architectures to keep after each choice.
        seed: Of the random completions that partial architectures are scored with.
    """

    kind = 'greedy'
    options = ('k', 'seed')
    fast = 'mmcr.RacingGreedySearcher'
    about = dict(
        method='Each step decides one more choice of the best of the step before. What '
        'is not decided yet is completed at random, anew for every mini-batch.',
        round='step',
    )

    def __init__(self, space: SearchSpace, k: int = 3, seed: int = 0):
        super().__init__(space)
        check_integer('k', k)
        self.k, self.seed = k, seed

    def rounds(self) -> Rounds:
        yield from self._decide_all()

    def _decide_all(self) -> Decision:
        """Returns the complete architectures kept after the last choice."""
        kept = [self._candidate(Arch({}))]
        for choice in self.space.choices:
            extended = [
                candidate.arch.updated({choice.name: value})
                for candidate in kept
                for value in choice.values
            ]
            completed = [a for a in extended if not self.space.check(a, partial=True)]
            kept = yield from self._keep_best_of(list(map(self._candidate, completed)))
        return kept

    def _keep_best_of(self, candidates: list[Candidate]) -> Decision:
        """Returns those to keep, at most `k`, the best first."""
        trials = yield [Proposal(candidate) for candidate in candidates]
        return [trial.proposal.candidate for trial in ranked(trials)[: self.k]]

    def _candidate(self, arch: Arch) -> Candidate:
        if len(arch) == len(self.space.choices):
            return Complete(arch)
        return Partial(arch, self.space, self.seed)

    def _step_sizes(self) -> list[int]:
        """How many candidates each step compares; under a budget, at most."""
        sizes, kept = [], 1
        for choice in self.space.reachable():
            sizes.append(kept * len(choice.values))
            kept = min(self.k, sizes[-1])
        return sizes

    @property
    def total(self) -> int:
        return sum(self._step_sizes())
