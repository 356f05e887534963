"""Decide one choice after the other and keep the best few (CR-NAS, Sec. 3.2)."""

from mmcr.errors import UserError
from mmcr.search.candidate import Complete, Partial, Proposal
from mmcr.search.searcher import Rounds, Searcher
from mmcr.space import Arch, SearchSpace


class GreedySearcher(Searcher):
    """Extends the `k` best partial architectures by every value of the next choice.

    Under a budget, an extension that no member completes is left out.

    Args:
        space: What to search; its choices are decided in their order.
        k: How many partial architectures to keep after each choice.
        seed: Of the random completions that partial architectures are scored with.

    Raises:
        UserError: `k` is no integer of at least 1.
    """

    def __init__(self, space: SearchSpace, k: int = 3, seed: int = 0):
        super().__init__(space)
        if not isinstance(k, int) or k < 1:
            raise UserError(f'k must be an integer of at least 1, but got {k!r}')
        self.k = k
        self.seed = seed

    def rounds(self) -> Rounds:
        kept = [Arch({})]
        for choice in self.space.choices:
            extended = [
                arch.updated({choice.name: value})
                for arch in kept
                for value in choice.values
            ]
            trials = yield [
                self._propose(arch)
                for arch in extended
                if self.space.check(arch, partial=True) is None
            ]
            # The sort is stable: of equals the one that was proposed first.
            trials = sorted(trials, key=lambda trial: trial.score, reverse=True)
            kept = [trial.proposal.candidate.arch for trial in trials[: self.k]]

    def _propose(self, arch: Arch) -> Proposal:
        if len(arch) == len(self.space.choices):
            return Proposal(Complete(arch))
        return Proposal(Partial(arch, self.space, self.seed))

    @property
    def total(self) -> int:
        """How many trials the search takes in all; under a budget, at most."""
        total, kept = 0, 1
        for choice in self.space.reachable():
            asked = kept * len(choice.values)
            total += asked
            kept = min(self.k, asked)
        return total

    def to_json(self) -> dict:
        return {'kind': 'greedy', 'k': self.k, 'seed': self.seed}
