"""Search spaces: what can be chosen, and within which cost."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from hashlib import sha256
from random import Random

from mmcr.errors import UserError
from mmcr.space.arch import Arch, ArchError, as_integer
from mmcr.space.cost import MOST_DRAWS, Budget, BudgetError, FeasibleSet, exact, plain


@dataclass(frozen=True)
class Choice:
    """A named decision among a few integers, in the order in which to try them.

    Raises:
        UserError: There is no value, or one twice, or one that is no integer.
    """

    name: str
    values: tuple[int, ...]

    def __post_init__(self):
        values = tuple(as_integer(value, self.name) for value in self.values)
        if not values or len(set(values)) < len(values):
            raise UserError(
                f'the choice {self.name} needs one or more distinct values, '
                f'but got {list(values)}'
            )
        object.__setattr__(self, 'values', values)

    def __str__(self) -> str:
        return f'{self.name} must be one of {", ".join(map(str, self.values))}'


class SearchSpace:
    """The architectures that take one value per choice and meet the budget.

    Sizes, lists and draws are exact and never enumerate the product of the choices.
    Under a budget, a space whose architectures have too many different costs has no
    size and no list; members are told and drawn all the same, and that none meets a
    budget may show in a draw alone.

    Args:
        choices: In the order in which architectures are written and searched.
        cost: What one value costs, as `cost(choice_name, value)`; an architecture
            costs the sum. It must be a pure function.
        budget: What the architectures may cost; needs `cost`.

    Raises:
        UserError: There is no choice, or two have one name.
        BudgetError: No architecture meets the budget, or there is no cost to bound.
    """

    def __init__(
        self,
        choices: Iterable[Choice],
        cost: Callable[[str, int], float] | None = None,
        budget: Budget | None = None,
    ):
        self.choices = tuple(choices)
        self.cost = cost
        self.budget = budget
        self._by_name = {choice.name: choice for choice in self.choices}
        if not self.choices or len(self._by_name) < len(self.choices):
            names = [choice.name for choice in self.choices]
            raise UserError(f'a space needs choices of distinct names, but got {names}')
        if budget is not None and cost is None:
            raise BudgetError(
                f'a budget ({budget}) needs a space with a cost; this one has none'
            )
        self._last_given = None
        self._members = FeasibleSet.within(
            budget,
            [[(v, self._cost(c.name, v)) for v in c.values] for c in self.choices],
        )
        if self._members.nearest_costs:
            nearest = map(str, map(plain, self._members.nearest_costs))
            raise BudgetError(
                f'no architecture of this space costs {budget}; the nearest reachable '
                f'costs are {" and ".join(nearest)}'
            )

    def check(self, arch: Mapping[str, int], partial: bool = False) -> ArchError | None:
        """Returns what keeps `arch` out of the space, or None for a member.

        With `partial` choices may be left out, if some member completes the rest.
        """
        try:
            arch = Arch(arch)
        except ArchError as error:
            return error
        for name, value in arch.items():
            if name not in self._by_name:
                return ArchError(
                    f'{name}={value}: this space has no choice {name}; its choices '
                    f'are {", ".join(self._by_name)}'
                )
            if value not in self._by_name[name].values:
                return ArchError(
                    f'{name}={value} is not in this space; {self._by_name[name]}'
                )
        missing = [choice for choice in self.choices if choice.name not in arch]
        if missing and not partial:
            return ArchError(
                f'the architecture ({arch}) is incomplete: {missing[0].name} is '
                f'missing; {missing[0]}'
            )
        if self.budget is None or not self._members_with(arch).nearest_costs:
            return None
        completed = ', and so does every completion of it' if missing else ''
        return ArchError(
            f'the architecture ({arch}) costs {self.cost_of(arch)} and misses the '
            f'budget{completed}: the cost must be {self.budget}'
        )

    def validate(self, arch: Mapping[str, int], partial: bool = False) -> None:
        """Raises the `ArchError` that `check` returns."""
        error = self.check(arch, partial)
        if error is not None:
            raise error

    def __contains__(self, arch) -> bool:
        return self.check(arch) is None

    @property
    def countable(self) -> bool:
        """Whether the members can be counted and listed; always without a budget."""
        return self._members.size is not None

    @property
    def size(self) -> int:
        """How many members there are; a `UserError` where it is not countable."""
        if not self.countable:
            raise UserError(
                f'the members of this space under its budget ({self.budget}) cannot be '
                f'counted or listed: its {len(self.choices)} choices add up to too '
                f'many different costs; draw from it, or search it by a method that '
                f'draws, as EvolutionSearcher'
            )
        return self._members.size

    def __len__(self) -> int:
        return self.size

    def __bool__(self) -> bool:
        # Never empty; and `len` of a large space does not fit Python's limit.
        return True

    def __iter__(self) -> Iterator[Arch]:
        """Yields the members lazily, the last choice varying fastest."""
        self.size  # noqa: B018, raises
        return map(self._arch, self._members.walk())

    def reachable(self) -> tuple[Choice, ...]:
        """Returns the choices with only the values that some member takes.

        In a space that is not countable one may be left in that none takes.
        """

        def occurs(name, value):
            return not self._members_with({name: value}).nearest_costs

        return tuple(
            Choice(name, tuple(v for v in choice.values if occurs(name, v)))
            for name, choice in self._by_name.items()
        )

    def sample(self, rng: Random, given: Mapping[str, int] | None = None) -> Arch:
        """Draws one member, all with the same probability.

        Without a budget the undecided choices are drawn one by one in order, so
        equal states of `rng` decide equal sets of undecided choices alike. In a space
        that is not countable that is repeated until the budget is met.

        Raises:
            ArchError: No member agrees with `given`, a partial architecture.
            BudgetError: Hardly any architecture meets the budget of a space that is
                not countable.
        """
        given = given or {}
        if given:
            self.validate(given, partial=True)
        if self.budget is None:
            return Arch(
                {
                    name: given[name] if name in given else rng.choice(choice.values)
                    for name, choice in self._by_name.items()
                }
            )
        members = self._members_with(given) if given else self._members
        values = members.draw(rng)
        if values is None:
            raise BudgetError(
                f'members can be drawn from a space as large as this one where its '
                f'budget leaves enough of it, but of {MOST_DRAWS:,} architectures none '
                f'costs {self.budget}; widen the budget'
            )
        return self._arch(values)

    def member(self, values: Mapping[str, int] | Sequence[int] | int) -> Arch:
        """Returns a member from what users write, its choices in the space's order.

        They write a mapping, a list of the values in that order, or one value for all.
        """
        names = list(self._by_name)
        if isinstance(values, int):
            values = dict.fromkeys(names, values)
        elif not isinstance(values, Mapping):
            if not isinstance(values, Sequence) or len(values) != len(names):
                raise ArchError(
                    f'an architecture must be a mapping, one value, or a list with a '
                    f'value for each of the choices {", ".join(names)}, but got '
                    f'{values!r}'
                )
            values = dict(zip(names, values))
        self.validate(values)
        return Arch({name: values[name] for name in names})

    def cost_of(self, arch: Mapping[str, int]) -> float:
        """Returns the summed cost of what `arch` decides, member or not."""
        if self.cost is None:
            raise BudgetError('this space has no cost')
        costs = (exact(self.cost(name, value)) for name, value in arch.items())
        return plain(sum(costs, Fraction(0)))

    def under(self, budget: Budget) -> 'SearchSpace':
        """Returns this space with `budget` in place of its own."""
        return SearchSpace(self.choices, self.cost, budget)

    @cached_property
    def costs_digest(self) -> str | None:
        """A short string for what values cost; None where that decides nothing."""
        if self.budget is None:
            return None
        costs = json.dumps(self.costs_to_json(), sort_keys=True)
        return sha256(costs.encode()).hexdigest()[:12]

    def to_json(self) -> dict:
        """Returns choices and budget, and what values cost where that decides."""
        obj = {
            'choices': {choice.name: list(choice.values) for choice in self.choices},
            'budget': None if self.budget is None else self.budget.to_json(),
        }
        if self.budget is not None:
            obj['costs'] = self.costs_to_json()
        return obj

    def costs_to_json(self) -> dict[str, dict[str, float]]:
        """Returns what the values of every choice cost; the space must have a cost."""
        return {
            choice.name: {
                str(value): plain(exact(self.cost(choice.name, value)))
                for value in choice.values
            }
            for choice in self.choices
        }

    def _arch(self, values: tuple[int, ...]) -> Arch:
        return Arch(dict(zip(self._by_name, values)))

    def _cost(self, name: str, value: int) -> Fraction:
        # free where nothing is bounded
        return Fraction(0) if self.budget is None else exact(self.cost(name, value))

    def _members_with(self, given: Mapping[str, int]) -> FeasibleSet:
        if not given:
            return self._members
        # kept for the next: completions of one architecture are drawn in a row
        if self._last_given != dict(given):
            levels = {name: level for level, name in enumerate(self._by_name)}
            self._last_members = self._members.agreeing(
                {levels[name]: value for name, value in given.items()}
            )
            self._last_given = dict(given)
        return self._last_members
