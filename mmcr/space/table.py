"""Additive costs as a table: counted or measured once, looked up from then on."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mmcr.checks import checked_shape, is_integer, is_number
from mmcr.errors import UserError
from mmcr.space.arch import Arch
from mmcr.space.cost import exact, plain
from mmcr.space.space import Choice

RULE = (
    'a cost table is a JSON object with kind and unit (strings), costs '
    '({choice: {value: cost}}), rest (a number), shape ([height, width] or null) and '
    'about (an object)'
)


@dataclass(frozen=True)
class CostTable:
    """What every value of every choice costs, and what no choice decides.

    Called as `table(choice, value)` it is the `cost` of a `SearchSpace`. The fixed
    cost (of stem, last conv) is counted once, in the first choice's share, so that a
    budget bounds what the whole backbone costs.

    Args:
        kind: What is counted: 'macs', 'params', 'latency'.
        unit: Of the costs: 'ms' for a latency.
        costs: By name of the choice and by value; none negative.
        fixed: Cost of all that no choice decides; in files ``rest``.
        shape: Height and width in pixels of the image that it holds for; None where
            the cost does not depend on the image.
        about: How it came about (device, versions, checks), as JSON; never read
            when costs are looked up.

    Raises:
        UserError: An argument breaks its rule.
    """

    kind: str
    unit: str
    costs: Mapping[str, Mapping[int, float]]
    fixed: float = 0
    shape: tuple[int, int] | None = None
    about: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self):
        for name, value in (('kind', self.kind), ('unit', self.unit)):
            if not isinstance(value, str):
                raise UserError(f'{name} must be a string, but got {value!r}')
        if not isinstance(self.costs, Mapping) or not self.costs:
            raise UserError(
                f'costs must map one or more choices to costs, but got {self.costs!r}'
            )
        costs = {name: _row(name, row) for name, row in self.costs.items()}
        object.__setattr__(self, 'costs', costs)
        _check_cost('the fixed cost (rest)', self.fixed)
        if self.shape is not None:
            object.__setattr__(self, 'shape', checked_shape(self.shape))
        if not isinstance(self.about, Mapping):
            raise UserError(f'about must be a mapping, but got {self.about!r}')

    def __call__(self, choice: str, value: int) -> float:
        """Returns a value's share; the first choice's has the fixed cost in it."""
        if choice not in self.costs:
            raise UserError(
                f'this table has no choice {choice}; its choices are '
                f'{", ".join(self.costs)}'
            )
        if value not in self.costs[choice]:
            raise UserError(
                f'{choice}={value} has no cost in this table; {choice} must be one of '
                f'{", ".join(map(str, self.costs[choice]))}'
            )
        cost = exact(self.costs[choice][value])
        if choice == next(iter(self.costs)):
            cost += exact(self.fixed)
        return plain(cost)

    def total(self, arch: Arch) -> float:
        """Returns what the whole backbone costs; `arch` decides every choice."""
        self.check_fits(Choice(name, (value,)) for name, value in arch.items())
        return plain(sum(exact(self(name, value)) for name, value in arch.items()))

    def check_fits(self, choices: Iterable[Choice]) -> None:
        """A `UserError` unless these are the table's choices, all values in it."""
        choices = tuple(choices)
        names = {choice.name for choice in choices}
        if names != set(self.costs):
            raise UserError(
                f'the {self.kind} table must be of the choices of the space, '
                f'{", ".join(sorted(names))}, but it is of {", ".join(self.costs)}'
            )
        for choice in choices:
            missing = [v for v in choice.values if v not in self.costs[choice.name]]
            if missing:
                raise UserError(
                    f'the {self.kind} table must hold every value of {choice.name}, '
                    f'but it has none for {", ".join(map(str, missing))}'
                )

    @property
    def is_constant(self) -> bool:
        """Whether all architectures cost the same."""
        return all(len(set(row.values())) == 1 for row in self.costs.values())

    def to_json(self) -> dict:
        rows = {
            name: {str(value): cost for value, cost in row.items()}
            for name, row in self.costs.items()
        }
        return dict(
            kind=self.kind,
            unit=self.unit,
            shape=None if self.shape is None else list(self.shape),
            rest=self.fixed,
            costs=rows,
            about=dict(self.about),
        )

    @classmethod
    def from_json(cls, obj) -> 'CostTable':
        """Reads what `to_json` wrote; anything else is a `UserError`."""
        fields = {'kind', 'unit', 'shape', 'rest', 'costs', 'about'}
        if not isinstance(obj, Mapping) or set(obj) != fields:
            found = list(obj) if isinstance(obj, Mapping) else obj
            raise UserError(f'{RULE}, but got {found!r}')
        try:
            costs = {
                name: {int(value): cost for value, cost in row.items()}
                for name, row in obj['costs'].items()
            }
        except (AttributeError, TypeError, ValueError):
            raise UserError(f'{RULE}, but costs are {obj["costs"]!r}') from None
        options = dict(obj, costs=costs)
        return cls(fixed=options.pop('rest'), **options)

    def write(self, path: str | Path) -> None:
        """Writes the table to a file; a `UserError` where that fails."""
        try:
            Path(path).write_text(json.dumps(self.to_json(), indent=2) + '\n')
        except OSError as error:
            raise UserError(
                f'the table must go to a file that can be written, but {error}'
            ) from None

    @classmethod
    def read(cls, path: str | Path) -> 'CostTable':
        """Reads a file that `write` wrote; anything else is a `UserError`."""
        try:
            return cls.from_json(json.loads(Path(path).read_text()))
        except OSError as error:
            raise UserError(
                f'a cost table must be a file that can be read, but {error}'
            ) from None
        except ValueError as error:  # no text, no JSON, or a UserError
            raise UserError(f'{path} is no cost table: {error}') from None


def _row(name: str, row: Mapping[int, float]) -> dict[int, float]:
    if not isinstance(name, str) or not isinstance(row, Mapping) or not row:
        raise UserError(
            f'costs of {name!r} must map one or more values to costs, but got {row!r}'
        )
    for value, cost in row.items():
        if not is_integer(value):
            raise UserError(f'the values of {name} are integers, but got {value!r}')
        _check_cost(f'the cost of {name}={value}', cost)
    return dict(row)


def _check_cost(name: str, cost: float) -> None:
    if not is_number(cost) or cost < 0:
        raise UserError(f'{name} must be a finite number, at least 0, but got {cost!r}')
