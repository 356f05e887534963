"""The history of a search: what its journal says, round by round."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import fmean

from mmcr.report.slices import ALL, Spans
from mmcr.search.pareto import Point, pareto_front, select
from mmcr.search.searcher import name_a_best, ranked
from mmcr.space import Arch
from mmcr.space.cost import exact, plain

#: Of searchers that do not say it.
ABOUT = dict(method='', round='round', kept='went on')


@dataclass(frozen=True)
class Scored:
    """A candidate with its score on some slices of archval."""

    arch: Arch  # what is decided of it
    slices: Spans  # in order
    score: float  # mean over the slices
    metrics: Mapping[str, float | None]  # of its only slice; empty where there are more


@dataclass(frozen=True)
class Step:
    """Candidates that were compared with each other."""

    scored: Sequence[Scored]  # in the order of the journal
    # those that the next step scores again, extends or breeds from; None: not known yet
    kept: frozenset[Arch] | None = None

    @property
    def rankings(self) -> dict[Spans, list[Scored]]:
        """By falling score, apart for each set of slices; the most slices first."""
        # sorting keeps the order of equals
        by_slices = sorted(
            ranked(self.scored), key=lambda s: (-len(s.slices), s.slices)
        )
        return {s: list(same) for s, same in groupby(by_slices, lambda s: s.slices)}

    @property
    def best(self) -> Scored:
        """The best of those on the most slices."""
        return next(iter(self.rankings.values()))[0]

    @property
    def decided(self) -> int:
        """How many choices its candidates have decided."""
        return len(self.scored[0].arch)


@dataclass(frozen=True)
class History:
    """One search under one budget."""

    name: str  # of its folder in the work dir, where it is one of several; or ''
    about: Mapping[str, str]  # what its searcher says of itself, in full
    choices: int  # how many there are
    budget: tuple[float, float] | None  # least and largest cost
    steps: Sequence[Step]  # as far as there are scores
    costs: Mapping[Arch, float]  # where the search weighs scores against costs
    unit: str  # of the costs

    @property
    def title(self) -> str:
        """Its budget in short."""
        return self.name.removeprefix('budget_')

    @property
    def ranking(self) -> list[Scored]:
        """The complete architectures scored on all of archval, by falling score."""
        complete = {
            scored.arch: scored
            for step in self.steps
            for scored in step.scored
            if len(scored.arch) == self.choices and scored.slices == ALL
        }
        return ranked(complete.values())

    @property
    def best(self) -> Scored | None:
        """The first of them, where the scores tell that it is the best."""
        complete, partial = [], []
        for step in self.steps:
            kind = partial if step.decided < self.choices else complete
            kind += [[s.score for s in same] for same in step.rankings.values()]
        scores = [scored.score for scored in self.ranking]
        named = scores and name_a_best(scores, complete, partial)
        return self.ranking[0] if named else None

    @property
    def archs(self) -> set[Arch]:
        """All that is scored, on whatever slices."""
        return {scored.arch for step in self.steps for scored in step.scored}

    @property
    def front(self) -> list[Scored]:
        """Those that none surpasses in score and cost, by rising cost."""
        ranking = self.ranking if self.costs and self.best else []
        return [ranking[i] for i in pareto_front(_points(ranking, self.costs))]


def histories(
    header: Mapping, entries: Sequence[Mapping], finished: bool
) -> list[History]:
    """Tells the searches of a journal apart, one for each budget, step by step.

    A journal of before rounds does not say which budget asked what: all is one
    search, its steps by how much was decided and by the slices.

    Args:
        header: Of the journal.
        entries: Its trials.
        finished: Whether the last round is complete.
    """
    own, space = header['searcher'], header['space']
    parts = own.get('searchers')
    if parts is None or not all('asked_by' in entry for entry in entries):
        return [_history('', own, space, entries, finished)]
    found = []
    for name, part in parts.items():
        asked = [entry for entry in entries if name in entry['asked_by']]
        found.append(_history(name, part, part['space'], asked, finished))
    return found


def _history(
    name: str, searcher: Mapping, space: Mapping, entries: Sequence, finished: bool
) -> History:
    scored = [_scored(entries) for entries in _races(entries)]
    costs, table = {}, searcher.get('costs') or space.get('costs')
    if searcher.get('pareto') and table:
        costs = {
            each.arch: plain(sum(exact(table[n][str(v)]) for n, v in each.arch.items()))
            for step in scored
            for each in step
        }
    steps = []
    for i, step in enumerate(scored, start=1):
        chosen = None
        if 'top' in searcher and i < len(scored):
            chosen = _parents(sum(scored[:i], []), searcher['top'], costs)
        elif i + 1 < len(scored) or finished and i < len(scored):
            chosen = _beginnings(scored[i], step[0].arch)
        kept = None if chosen is None else chosen & {each.arch for each in step}
        steps.append(Step(step, kept))
    budget = space['budget'] and (space['budget']['low'], space['budget']['high'])
    about, unit = ABOUT | searcher.get('about', {}), searcher.get('unit', 'cost')
    return History(name, about, len(space['choices']), budget, steps, costs, unit)


def _races(entries: Sequence[Mapping]) -> list[list[Mapping]]:
    """The rounds, in one those in which a race over slices goes on."""
    knows_rounds = all('round' in entry for entry in entries)

    def place(entry: Mapping) -> tuple:
        if knows_rounds:
            return (entry['round'],)
        portion = tuple(entry['portion'])
        return len(entry['candidate']['arch']), (portion,) == ALL, portion

    races: list[list[Mapping]] = []
    for _, group in groupby(sorted(entries, key=place), place):
        same = list(group)
        # every other round starts where archval does
        if races and min(entry['portion'][0] for entry in same) > 0:
            races[-1] += same
        else:
            races.append(same)
    return races


def _scored(entries: Iterable[Mapping]) -> list[Scored]:
    by_arch: dict[Arch, list[Mapping]] = {}
    for entry in entries:
        arch = Arch.from_json(entry['candidate']['arch'])
        by_arch.setdefault(arch, []).append(entry)
    return [
        Scored(
            arch,
            tuple(sorted(tuple(map(float, e['portion'])) for e in own)),
            fmean(e['score'] for e in own),
            own[0]['metrics'] if len(own) == 1 else {},
        )
        for arch, own in by_arch.items()
    ]


def _beginnings(scored: Iterable[Scored], like: Arch) -> frozenset[Arch]:
    """What they decide of the choices that `like` decides."""
    return frozenset(
        Arch({name: each.arch[name] for name in like.keys() & each.arch.keys()})
        for each in scored
    )


def _parents(
    scored: Sequence[Scored], top: int, costs: Mapping[Arch, float]
) -> frozenset[Arch]:
    """The `top` best, in score and cost where the search weighs both."""
    best = ranked(scored)[:top]
    if costs:
        best = [scored[i] for i in select(_points(scored, costs), top)]
    return frozenset(each.arch for each in best)


def _points(scored: Iterable[Scored], costs: Mapping[Arch, float]) -> list[Point]:
    return [Point(each.score, costs[each.arch]) for each in scored]
