"""The course of a search, told from its journal by replay."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from statistics import fmean

from mmcr.errors import UserError
from mmcr.report.slices import ALL, Portions
from mmcr.search import (
    EvolutionSearcher,
    ExhaustiveSearcher,
    GreedySearcher,
    HalvingSearcher,
    RacingGreedySearcher,
    Searcher,
    Trial,
)
from mmcr.search.candidate import proposal_key
from mmcr.search.pareto import Point, pareto_front
from mmcr.space import (
    Arch,
    Budget,
    Choice,
    SearchSpace,
)

KINDS = dict(
    exhaustive=ExhaustiveSearcher,
    halving=HalvingSearcher,
    greedy=GreedySearcher,
    racing=RacingGreedySearcher,
    evolution=EvolutionSearcher,
)
NUMBERED = dict(halving='rung', evolution='generation')  # steps, by kind


@dataclass(frozen=True)
class Scored:
    """A candidate with its score on some slices of archval.

    Attributes:
        arch: What is decided of it.
        portions: The slices, in order.
        score: Where there are several slices, the mean of their scores.
        metrics: Those of its only slice; empty where there are several.
    """

    arch: Arch
    portions: Portions
    score: float
    metrics: Mapping[str, float | None]


@dataclass(frozen=True)
class Step:
    """Candidates that were compared with each other.

    Attributes:
        asked: How many there are.
        scored: Those with a score so far, in the order of the search.
        kept: Those that went on to the next step, or are parents of the next
            generation; ``None`` as long as that is open, and in the last step.
    """

    asked: int
    scored: Sequence[Scored]
    kept: frozenset[Arch] | None

    @property
    def rankings(self) -> dict[Portions, list[Scored]]:
        """By falling score, apart for each set of slices; the most slices first."""
        # sorting keeps the order of equals: of equal scores the earlier leads
        ranked = sorted(self.scored, key=lambda scored: -scored.score)
        ranked.sort(key=lambda scored: (-len(scored.portions), scored.portions))
        return {p: list(same) for p, same in groupby(ranked, lambda s: s.portions)}

    @property
    def decided(self) -> int:
        """How many choices its candidates have decided."""
        return len(self.scored[0].arch)

    @property
    def on_all(self) -> bool:
        """Whether its candidates are scored on all of archval at once."""
        return self.scored[0].portions == ALL


@dataclass(frozen=True)
class Course:
    """One search under one budget.

    Attributes:
        name: Its folder in the work dir, where it is one of several; or ''.
        kind: 'exhaustive', 'halving', 'greedy', 'racing', 'evolution' or another.
        choices: How many there are.
        budget: Least and largest cost, where there is a budget.
        steps: As far as there are scores.
        finished: Whether all that the search asks for is scored.
        costs: Of all that is scored, where the search weighs scores against costs.
        unit: Of these.
    """

    name: str
    kind: str
    choices: int
    budget: tuple[float, float] | None
    steps: Sequence[Step]
    finished: bool
    costs: Mapping[Arch, float] = field(default_factory=dict)
    unit: str = 'cost'

    @property
    def ranking(self) -> list[Scored]:
        """The complete architectures that were scored on all of archval.

        By falling score; of equals the earlier first, as the search has it.
        """
        complete = [
            scored
            for step in self.steps
            for scored in step.scored
            if len(scored.arch) == self.choices and scored.portions == ALL
        ]
        return sorted(complete, key=lambda scored: -scored.score)

    @property
    def front(self) -> list[Scored]:
        """Those that none surpasses in score and cost, by rising cost."""
        ranking = self.ranking
        points = [Point(scored.score, self.costs[scored.arch]) for scored in ranking]
        return [ranking[i] for i in pareto_front(points)]

    def label(self, step: Step) -> str:
        """What to call a step: its number, or how many choices are decided."""
        if self.kind in NUMBERED:
            return str(1 + list(self.steps).index(step))
        if self.kind == 'racing' and step.on_all:
            return f'{step.decided}, final'
        return str(step.decided)


@dataclass(frozen=True)
class _Round:
    archs: frozenset[Arch]  # that were asked
    start: float  # where the first of its slices begins
    entries: Sequence[Mapping]  # in the order of the search
    parents: frozenset[Arch] | None = None  # of the next generation


def courses_of(header: Mapping, entries: Sequence[Mapping]) -> list[Course]:
    """Tells the searches of a journal apart, step by step.

    The searches are run again with the scores of the journal for answers. Where
    that cannot be done, with a kind that is not mmcr's own or with costs that the
    header does not hold, all is told as one search, its steps by how much was
    decided and by the slices.

    Args:
        header: Of the journal.
        entries: Its trials.

    Returns:
        One for each budget.
    """
    own, space = header['searcher'], header['space']
    parts = {'': {**own, 'space': space}}
    if own['kind'] == 'joint':
        parts = own['searchers']
    searchers = {name: _searcher(part) for name, part in parts.items()}
    if None in searchers.values():
        steps = _steps(list(_sorted(entries)))
        return [Course('', own['kind'], len(space['choices']), None, steps, True)]
    known = {proposal_key(entry): entry for entry in entries}
    courses = []
    for name, searcher in searchers.items():
        budget = searcher.space.budget
        steps = _steps(list(_replay(searcher, known)))
        costs = {}
        if parts[name].get('pareto'):
            archs = [scored.arch for step in steps for scored in step.scored]
            costs = {arch: searcher.space.cost_of(arch) for arch in archs}
        courses.append(
            Course(
                name,
                parts[name]['kind'],
                len(space['choices']),
                budget and (budget.low, budget.high),
                steps,
                not searcher.ask(),
                costs,
                parts[name].get('unit', 'cost'),
            )
        )
    return courses


def _replay(searcher: Searcher, known: Mapping) -> Iterator[_Round]:
    while proposals := searcher.ask():
        entries = [known[p.key] for p in proposals if p.key in known]
        archs = frozenset(p.candidate.arch for p in proposals)
        start = min(p.portion[0] for p in proposals)
        if len(entries) < len(proposals):
            yield _Round(archs, start, entries)
            return
        searcher.tell(
            [Trial(p, e['score'], e['metrics']) for p, e in zip(proposals, entries)]
        )
        parents = None
        if isinstance(searcher, EvolutionSearcher):
            parents = frozenset(t.proposal.candidate.arch for t in searcher.parents())
        yield _Round(archs, start, entries, parents)


def _searcher(obj: Mapping) -> Searcher | None:
    """Builds a searcher again from its JSON form; ``None`` where that fails."""
    options = {name: value for name, value in obj.items() if name != 'unit'}
    try:
        kind = KINDS[options.pop('kind')]
        noted = {'costs': options.pop('costs')} if 'costs' in options else {}
        space = _space({**options.pop('space'), **noted})
        if issubclass(kind, ExhaustiveSearcher):
            options['max_trials'] = space.size
        return kind(space, **options)
    except (KeyError, TypeError, UserError):
        return None


def _space(obj: Mapping) -> SearchSpace:
    choices = [Choice(name, tuple(values)) for name, values in obj['choices'].items()]
    budget = None if obj['budget'] is None else Budget(**obj['budget'])
    if budget is None and 'costs' not in obj:
        return SearchSpace(choices)
    costs = obj['costs']
    return SearchSpace(choices, lambda name, value: costs[name][str(value)], budget)


def _sorted(entries: Sequence[Mapping]) -> Iterator[_Round]:
    """Rounds as they may have been: by how much is decided, and by the slice."""

    def level(entry: Mapping) -> tuple:
        return len(entry['candidate']['arch']), *entry['portion']

    for (_, start, _), same in groupby(sorted(entries, key=level), level):
        same = list(same)
        archs = frozenset(Arch.from_json(e['candidate']['arch']) for e in same)
        yield _Round(archs, start, same)


def _steps(rounds: Sequence[_Round]) -> list[Step]:
    races: list[list[_Round]] = []
    for each in rounds:
        # a race goes on where it was; every other step starts where archval does
        if each.start > 0 and races:
            races[-1].append(each)
        else:
            races.append([each])
    steps = []
    for race, following in zip(races, [*races[1:], None]):
        scored = _scored([entry for each in race for entry in each.entries])
        kept = None
        if following is not None:
            later = following[0].archs
            kept = frozenset(arch for arch in race[0].archs if _goes_on(arch, later))
            if race[0].parents is not None:
                kept = race[0].archs & race[0].parents
        if scored:
            steps.append(Step(len(race[0].archs), scored, kept))
    return steps


def _goes_on(arch: Arch, later: frozenset[Arch]) -> bool:
    """Whether it is one of the later ones, or one of them extends it."""
    return arch in later or any(arch.items() <= other.items() for other in later)


def _scored(entries: list[Mapping]) -> list[Scored]:
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
