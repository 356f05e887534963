"""Score every member on a little, the better ones on more: successive halving.

After K. Jamieson and A. Talwalkar, "Non-stochastic Best Arm Identification and
Hyperparameter Optimization", AISTATS 2016, Sec. 3.
"""

from mmcr.checks import check_integer
from mmcr.search.candidate import Complete, Proposal
from mmcr.search.exhaustive import ExhaustiveSearcher
from mmcr.search.searcher import Rounds, ranked
from mmcr.space import SearchSpace


class HalvingSearcher(ExhaustiveSearcher):
    """Scores the survivors of each rung on `eta` times as much of archval.

    The slices are nested: each starts where archval starts, and the last rung is all of
    it. So that a slice stands for the whole, the images should be in random order. A
    member whose score on a small slice misleads is lost for good.

    Args:
        space: Usually under a budget.
        eta: A rung keeps one in `eta`, rounded up.
        rungs: How many there are; the first scores on ``eta ** (1 - rungs)``.
        finalists: How many are kept at least, for the last rung; where there are no
            more members, all are scored on everything.
        max_trials: How large a space may be, without a UserError.
    """

    kind = 'halving'
    options = ('eta', 'rungs', 'finalists')
    about = dict(
        method='Every candidate enters the first rung; the best of a rung go on to the '
        'next and are scored on more images. The first images are those of a random '
        'order.',
        round='rung',
    )

    def __init__(
        self,
        space: SearchSpace,
        eta: int = 4,
        rungs: int = 3,
        finalists: int = 8,
        max_trials: int = 5000,
    ):
        check_integer('eta', eta, at_least=2)
        check_integer('rungs', rungs)
        check_integer('finalists', finalists)
        super().__init__(space, max_trials)
        self.eta, self.rungs, self.finalists = eta, rungs, finalists

    def rounds(self) -> Rounds:
        survivors = [Complete(arch) for arch in self.space]
        (first, _), *later = self._schedule()
        trials = yield [Proposal(c, (0, first)) for c in survivors]
        for stop, count in later:
            kept = {trial.proposal.candidate for trial in ranked(trials)[:count]}
            # in the order of the space: ties end as in an exhaustive search
            survivors = [c for c in survivors if c in kept]
            trials = yield [Proposal(c, (0, stop)) for c in survivors]

    def _schedule(self) -> list[tuple[float, int]]:
        """Where each rung's slice stops, and how many members it scores."""
        schedule, count = [], self.space.size
        for rung in range(1 - self.rungs, 0):
            if count > self.finalists:
                schedule.append((self.eta**rung, count))
                count = max(-(-count // self.eta), self.finalists)
        return [*schedule, (1.0, count)]

    @property
    def total(self) -> int:
        return sum(count for _, count in self._schedule())

    @property
    def work(self) -> float:
        return sum(count * stop for stop, count in self._schedule())
