"""Additive costs as a table: counted or measured once, looked up from then on."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mmcr.checks import checked_shape, is_integer, is_number
from mmcr.errors import UserError
from mmcr.files import read_json, write_bytes
from mmcr.space.arch import Arch
from mmcr.space.cost import exact, plain
from mmcr.space.space import Choice

FIELDS = ('kind', 'unit', 'shape', 'rest', 'costs', 'about')
RULE = (
    'a cost table is a JSON object with kind and unit (strings), costs ({choice: '
    '{value: cost}}, values integers, costs finite and at least 0), rest (a cost), '
    'shape ([height, width] or null) and about (an object)'
)


@dataclass(frozen=True)
class CostTable:
    """What every value of every choice costs, and what no choice decides.

    Called as `table(choice, value)` it is the `cost` of a `SearchSpace`. The fixed
    cost is counted once, in the first choice's share, so that a budget bounds what
    the whole backbone costs.

    Args:
        kind: What is counted: 'macs', 'params', 'latency'.
        unit: Of the costs: 'ms' for a latency.
        costs: By name of the choice and by value.
        fixed: Cost of all that no choice decides; in files ``rest``.
        shape: Height and width in pixels of the image, where the cost depends on it.
        about: How it came about (device, versions, checks), as JSON.

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
        for name in ('kind', 'unit'):
            _require(isinstance(getattr(self, name), str), name, getattr(self, name))
        _require(isinstance(self.costs, Mapping) and self.costs, 'costs', self.costs)
        for name, row in self.costs.items():
            _require(isinstance(row, Mapping) and row, f'costs of {name}', row)
            for value, cost in row.items():
                holds = is_integer(value) and _is_cost(cost)
                _require(holds, f'the cost of {name}={value!r}', cost)
        _require(_is_cost(self.fixed), 'rest', self.fixed)
        _require(isinstance(self.about, Mapping), 'about', self.about)
        costs = {name: dict(row) for name, row in self.costs.items()}
        object.__setattr__(self, 'costs', costs)
        if self.shape is not None:
            object.__setattr__(self, 'shape', checked_shape(self.shape))

    def __call__(self, choice: str, value: int) -> float:
        """Returns a value's share; the first choice's has the fixed cost in it."""
        if value not in self.costs.get(choice, ()):
            raise UserError(
                f'{choice}={value} has no cost in this table, which has those of '
                f'{_listed(self.costs)}'
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
        choices = {choice.name: choice.values for choice in choices}
        if choices.keys() != self.costs.keys() or not all(
            self.costs[name].keys() >= set(values) for name, values in choices.items()
        ):
            raise UserError(
                f'the {self.kind} table must hold the choices of the space with every '
                f'value, {_listed(choices)}, but it holds {_listed(self.costs)}'
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
        shape = None if self.shape is None else list(self.shape)
        values = self.kind, self.unit, shape, self.fixed, rows, dict(self.about)
        return dict(zip(FIELDS, values))

    @classmethod
    def from_json(cls, obj) -> 'CostTable':
        """Reads what `to_json` wrote; anything else is a `UserError`."""
        _require(isinstance(obj, Mapping) and set(obj) == set(FIELDS), 'it', obj)
        options = dict(obj)
        options['fixed'] = options.pop('rest')
        try:
            options['costs'] = {
                name: {int(value): cost for value, cost in row.items()}
                for name, row in obj['costs'].items()
            }
        except (AttributeError, ValueError):
            pass  # the constructor says what they must be
        return cls(**options)

    def write(self, path: str | Path) -> None:
        """Writes the table to a file; a `UserError` where that fails."""
        try:
            write_bytes(path, (json.dumps(self.to_json(), indent=2) + '\n').encode())
        except OSError as error:
            raise UserError(
                f'the table must go to a file that can be written, but {error}'
            ) from None

    @classmethod
    def read(cls, path: str | Path) -> 'CostTable':
        """Reads a file that `write` wrote; anything else is a `UserError`."""
        try:
            return cls.from_json(read_json(path, 'a cost table'))
        except OSError as error:
            raise UserError(
                f'a cost table must be a file that can be read, but {error}'
            ) from None
        except UserError as error:
            raise UserError(f'{path} is no cost table: {error}') from None


def _require(holds: bool, name: str, value: object) -> None:
    if not holds:
        raise UserError(f'{RULE}, but got {value!r} for {name}')


def _is_cost(value: object) -> bool:
    return is_number(value) and value >= 0


def _listed(values: Mapping[str, Iterable[int]]) -> str:
    rows = (f'{name} ({", ".join(map(str, row))})' for name, row in values.items())
    return ', '.join(rows)
