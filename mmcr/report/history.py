"""The history of a search: what its journal says, round by round."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from statistics import fmean

from mmcr.report.slices import ALL, Spans
from mmcr.search.pareto import Point, pareto_front, select
from mmcr.space import Arch
from mmcr.space.cost import exact, plain

#: Of searchers that do not say it.
ABOUT = dict(method='', round='round', kept='went on')


@dataclass(frozen=True)
class Scored:
    """A candidate with its score on some slices of archval.

    Attributes:
        arch: What is decided of it.
        slices: On which it is scored, in order.
        score: Where there are several slices, the mean of their scores.
        metrics: Those of its only slice; empty where there are several.
    """

    arch: Arch
    slices: Spans
    score: float
    metrics: Mapping[str, float | None]


@dataclass(frozen=True)
class Step:
    """Candidates that were compared with each other.

    Attributes:
        scored: In the order of the journal.
        kept: Those that the next step scores again or extends, or breeds from;
            ``None`` as long as that is open, and in the last step.
    """

    scored: Sequence[Scored]
    kept: frozenset[Arch] | None = None

    @property
    def rankings(self) -> dict[Spans, list[Scored]]:
        """By falling score, apart for each set of slices; the most slices first."""
        # sorting keeps the order of equals: of equal scores the earlier leads
        ranked = sorted(self.scored, key=lambda scored: -scored.score)
        ranked.sort(key=lambda scored: (-len(scored.slices), scored.slices))
        return {s: list(same) for s, same in groupby(ranked, lambda s: s.slices)}

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
    """One search under one budget.

    Attributes:
        name: Its folder in the work dir, where it is one of several; or ''.
        about: What its searcher says of itself (`Searcher.about`), in full.
        choices: How many there are.
        budget: Least and largest cost, where there is a budget.
        steps: As far as there are scores.
        costs: Of all that is scored, where the search weighs scores against costs.
        unit: Of these.
    """

    name: str
    about: Mapping[str, str]
    choices: int
    budget: tuple[float, float] | None
    steps: Sequence[Step]
    costs: Mapping[Arch, float] = field(default_factory=dict)
    unit: str = 'cost'

    @property
    def title(self) -> str:
        """Its budget in short."""
        return self.name.removeprefix('budget_')

    @property
    def ranking(self) -> list[Scored]:
        """The complete architectures that were scored on all of archval.

        By falling score; of equals the first in the journal comes first.
        """
        complete = {
            scored.arch: scored
            for step in self.steps
            for scored in step.scored
            if len(scored.arch) == self.choices and scored.slices == ALL
        }
        return sorted(complete.values(), key=lambda scored: -scored.score)

    @property
    def archs(self) -> set[Arch]:
        """All that is scored, on whatever slices."""
        return {scored.arch for step in self.steps for scored in step.scored}

    @property
    def front(self) -> list[Scored]:
        """Those that none surpasses in score and cost, by rising cost."""
        ranking = self.ranking if self.costs else []
        return [ranking[i] for i in pareto_front(_points(ranking, self.costs))]


def histories(
    header: Mapping, entries: Sequence[Mapping], finished: bool
) -> list[History]:
    """Tells the searches of a journal apart, each step by step.

    A journal of before rounds does not say which budget asked what: all is one
    search, its steps by how much was decided and by the slices.

    Args:
        header: Of the journal.
        entries: Its trials.
        finished: Whether the last round is complete.

    Returns:
        One for each budget.
    """
    own, space = header['searcher'], header['space']
    parts = own.get('searchers')
    if parts is None or not all('asked_by' in entry for entry in entries):
        return [_history('', own, space, entries, finished)]
    return [
        _history(
            name,
            part,
            part['space'],
            [entry for entry in entries if name in entry['asked_by']],
            finished,
        )
        for name, part in parts.items()
    ]


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
    best = sorted(scored, key=lambda each: -each.score)[:top]
    if costs:
        best = [scored[i] for i in select(_points(scored, costs), top)]
    return frozenset(each.arch for each in best)


def _points(scored: Iterable[Scored], costs: Mapping[Arch, float]) -> list[Point]:
    return [Point(each.score, costs[each.arch]) for each in scored]
