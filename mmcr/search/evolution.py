"""Evolutionary search (DetNAS, NeurIPS 2019), also for a whole front of costs."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from random import Random

from mmcr.checks import check_integer, is_number
from mmcr.errors import UserError
from mmcr.search.candidate import Complete, Proposal, Trial
from mmcr.search.pareto import Point, pareto_front, select
from mmcr.search.searcher import Rounds, Searcher, ranked
from mmcr.space import Arch, BudgetError, SearchSpace


class EvolutionSearcher(Searcher):
    """Breeds each generation from the best architectures of all before it.

    The first generation is drawn at random. Parents of every other one are drawn from
    the best of all before it. No architecture is proposed twice, and all are members of
    the space: what breaks either rule is drawn again. Where breeding finds nothing new,
    as when the parents are few or alike, random members take the place; a space of
    which all members are proposed ends the search.

    Args:
        space: What to search, under a budget or not.
        population: Size of a generation.
        generations: How many there are, the first, random one among them.
        top: How many may be parents.
        mutations: How many of each generation but the first are copies of a parent with
            some values drawn anew.
        crossovers: How many take every value from one of two parents; the rest are
            drawn at random.
        mutation_rate: How likely a mutation is to draw a value anew, from 0 to 1.
        seed: Of all that is drawn.
        max_tries: For each architecture of a generation.
        pareto: Whether a low cost, as the space has it, is an objective beside a high
            score: parents are those that no other surpasses in both, those that only
            these surpass, and so on (NSGA-II), and the search ends with a `front`.
        start: Architectures that the first generation begins with, as mappings.

    Raises:
        UserError: An option is out of range, there is no cost to weigh, the budget
            leaves too little of the space to draw from, or `start` has what is no
            member, or more than a generation has.
    """

    kind = 'evolution'
    options = (
        'population',
        'generations',
        'top',
        'mutations',
        'crossovers',
        'mutation_rate',
        'seed',
        'max_tries',
        'pareto',
    )
    about = dict(
        method='The first generation is drawn at random, and so is a part of the '
        'others; the rest is bred from the best of all before it, its parents.',
        round='generation',
        kept='parents of the next',
    )

    def __init__(
        self,
        space: SearchSpace,
        population: int = 50,
        generations: int = 20,
        top: int = 10,
        mutations: int = 20,
        crossovers: int = 20,
        mutation_rate: float = 0.1,
        seed: int = 0,
        max_tries: int = 100,
        pareto: bool = False,
        start: Sequence[Mapping[str, int]] = (),
    ):
        super().__init__(space)
        self.population, self.generations, self.top = population, generations, top
        self.mutations, self.crossovers = mutations, crossovers
        self.mutation_rate, self.seed = mutation_rate, seed
        self.max_tries, self.pareto = max_tries, pareto
        self.trials: list[Trial] = []  # of all generations so far
        for arch in start:
            space.validate(arch)
        self.start = list(dict.fromkeys(map(Arch, start)))
        for name in ('population', 'generations', 'top', 'max_tries'):
            check_integer(name, getattr(self, name))
        if len(self.start) > population:
            raise UserError(
                f'start must fit into the first generation, population={population}, '
                f'but has {len(self.start)} architectures. Raise population, or give '
                f'fewer.'
            )
        check_integer('mutations', mutations, at_least=0)
        check_integer('crossovers', crossovers, at_least=0)
        if mutations + crossovers > population:
            raise UserError(
                f'mutations + crossovers <= population must hold, but got '
                f'{mutations} + {crossovers} and {population}'
            )
        if not is_number(mutation_rate) or not 0 < mutation_rate <= 1:
            raise UserError(
                f'0 < mutation_rate <= 1 must hold, but got {mutation_rate!r}'
            )
        if pareto and space.cost is None:
            raise UserError(
                'pareto weighs scores against costs, but the choices of this space, '
                'dilations for example, have no cost: leave pareto out, or give the '
                'search a budget that has one, as '
                "budget=dict(type='latency', limit=..., table=...)"
            )
        space.sample(Random(f'{seed}'))  # now, not in the midst of a search

    def rounds(self) -> Rounds:
        for generation in range(self.generations):
            first = [] if generation else self.start
            rng = Random(f'{self.seed}/{generation}')
            archs = list(self._generation(rng, first))
            if not archs:
                return
            self.trials += yield [Proposal(Complete(arch)) for arch in archs]

    def parents(self) -> list[Trial]:
        """Returns what the next generation is bred from."""
        if self.pareto:
            return [self.trials[i] for i in select(self._points(), self.top)]
        return ranked(self.trials)[: self.top]

    def front(self) -> list[Trial]:
        """Returns the trials that none surpasses in score and cost, by rising cost."""
        return [self.trials[i] for i in pareto_front(self._points())]

    def _points(self) -> list[Point]:
        return [
            Point(trial.score, self.space.cost_of(trial.proposal.candidate.arch))
            for trial in self.trials
        ]

    def _generation(self, rng: Random, first: list[Arch]) -> Iterator[Arch]:
        """Yields what no generation has had yet; less than asked where all is known."""
        yield from first
        known = {trial.proposal.candidate.arch for trial in self.trials} | {*first}
        parents = [trial.proposal.candidate.arch for trial in self.parents()]

        def mutant() -> Arch:
            parent = rng.choice(parents)
            return Arch(
                {
                    choice.name: rng.choice(choice.values)
                    if rng.random() < self.mutation_rate
                    else parent[choice.name]
                    for choice in self.space.choices
                }
            )

        def child() -> Arch:
            both = rng.choice(parents), rng.choice(parents)
            return Arch({name: rng.choice(both)[name] for name in both[0]})

        bred = self.mutations + self.crossovers if parents else 0
        for i in range(self.population - len(first)):
            breed = mutant if i < self.mutations else child
            arch = self._new(breed, known) if i < bred else None
            arch = arch or self._fresh(rng, known)
            if arch is not None:
                known.add(arch)
                yield arch
            elif self.space.countable:  # all is known
                return

    def _new(self, draw: Callable[[], Arch], known: set[Arch]) -> Arch | None:
        for _ in range(self.max_tries):
            arch = draw()
            if arch not in known and arch in self.space:
                return arch
        return None

    def _fresh(self, rng: Random, known: set[Arch]) -> Arch | None:
        try:
            arch = self._new(lambda: self.space.sample(rng), known)
        except BudgetError:  # of a large space, members too rare to be drawn
            if not self.trials:
                raise
            return None  # a place stays empty; the next may be bred
        if arch is not None or not self.space.countable:
            return arch
        return next((arch for arch in self.space if arch not in known), None)

    @property
    def total(self) -> int:
        asked = self.population * self.generations
        return min(asked, self.space.size) if self.space.countable else asked

    def to_json(self) -> dict:
        obj = super().to_json()
        if self.start:  # which earlier journals do not say
            obj['start'] = [arch.to_json() for arch in self.start]
        if self.pareto:
            obj['unit'] = getattr(self.space.cost, 'unit', 'cost')
            if self.space.budget is None:  # with one, the space itself notes them
                obj['costs'] = self.space.costs_to_json()
        return obj
