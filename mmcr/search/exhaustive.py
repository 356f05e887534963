"""Score every member: the paper's stage search (CR-NAS, Sec. 3.1)."""

from mmcr.checks import check_integer
from mmcr.errors import UserError
from mmcr.search.candidate import Complete, Proposal
from mmcr.search.searcher import Rounds, Searcher
from mmcr.space import SearchSpace


class ExhaustiveSearcher(Searcher):
    """Asks for every member of the space, in one round.

    Args:
        space: Usually under a budget.
        max_trials: How large a space may be, without a UserError.
    """

    kind = 'exhaustive'
    fast = 'mmcr.HalvingSearcher'

    def __init__(self, space: SearchSpace, max_trials: int = 5000):
        check_integer('max_trials', max_trials)
        super().__init__(space)
        if not space.countable or space.size > max_trials:
            size = f'{space.size:,}' if space.countable else 'too many to count'
            raise UserError(
                f'{type(self).__name__} scores every member, but this space has '
                f'{size}, more than max_trials={max_trials:,}; search it greedily '
                f'(GreedySearcher) or by evolution (EvolutionSearcher), tighten its '
                f'budget, or raise max_trials'
            )

    def rounds(self) -> Rounds:
        yield [Proposal(Complete(arch)) for arch in self.space]

    @property
    def total(self) -> int:
        return self.space.size
