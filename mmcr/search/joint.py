"""Several searches from one pass, as for several budgets of one supernet."""

from collections.abc import Mapping
from itertools import islice

from mmcr.errors import UserError
from mmcr.search.candidate import Trial
from mmcr.search.searcher import Rounds, Searcher, UnrankedError, ranked
from mmcr.space import SearchSpace


class JointSearcher(Searcher):
    """Runs searches in lock step: a round is what all of them ask next.

    So their candidates are evaluated together, and what several ask is scored once.
    Each search takes the course that it takes alone.

    Args:
        searchers: New ones of any kind, by name; their spaces offer the same choices,
            usually under different budgets. A UserError where they do not.
    """

    kind = 'joint'

    def __init__(self, searchers: Mapping[str, Searcher]):
        self.searchers = dict(searchers)
        if not self.searchers:
            raise UserError('a joint search needs one or more searchers, but got none')
        first, *others = self.searchers
        choices = self.searchers[first].space.choices
        for name in others:
            if self.searchers[name].space.choices != choices:
                raise UserError(
                    f'joint searches must have the same choices, but those of {name} '
                    f'are not those of {first}; search them one by one'
                )
        super().__init__(SearchSpace(choices))

    def rounds(self) -> Rounds:
        while asked := self._asked():
            trials = yield [p for proposals in asked.values() for p in proposals]
            answers = iter(trials)
            for name, proposals in asked.items():
                self.searchers[name].tell(list(islice(answers, len(proposals))))

    def _asked(self) -> dict[str, list]:
        """The rounds of those searches that have not finished."""
        asked = {name: searcher.ask() for name, searcher in self.searchers.items()}
        return {name: proposals for name, proposals in asked.items() if proposals}

    def askers(self) -> dict[str, tuple[str, ...]]:
        names: dict[str, tuple[str, ...]] = {}
        for name, proposals in self._asked().items():
            for p in proposals:
                names[p.key] = (*names.get(p.key, ()), name)
        return names

    def best(self) -> Trial:
        """As of any searcher; an UnrankedError where one of the searches has none."""
        found, unranked = [], []
        for name, searcher in self.searchers.items():
            try:
                found.append(searcher.best().proposal.key)
            except UnrankedError as error:
                unranked.append(f'{name}: {error}')
        if unranked:
            raise UnrankedError('\n'.join(unranked))
        return ranked(self._told[key] for key in self._told if key in found)[0]

    @property
    def total(self) -> int:
        return sum(searcher.total for searcher in self.searchers.values())

    @property
    def work(self) -> float:
        return sum(searcher.work for searcher in self.searchers.values())

    def to_json(self) -> dict:
        searchers = {
            name: {**searcher.to_json(), 'space': searcher.space.to_json()}
            for name, searcher in self.searchers.items()
        }
        return {'kind': self.kind, 'searchers': searchers}
