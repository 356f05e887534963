"""An architecture: the value that every choice took."""

from collections.abc import Iterator, Mapping

from mmcr.checks import is_integer
from mmcr.errors import UserError


class ArchError(UserError):
    """An architecture that cannot be read, or that its space does not hold."""


def as_integer(value, name: str) -> int:
    """Returns `value` as a plain int; booleans and fractions are refused."""
    if not is_integer(value):
        raise ArchError(f'{name} must be an integer, but got {value!r}')
    return int(value)


class Arch(Mapping[str, int]):
    """An immutable, hashable mapping from the name of a choice to its value.

    Equal in whatever order. A partial one leaves some choices of its space out.

    Raises:
        ArchError: `values` is not a mapping from names to integers.
    """

    __slots__ = ('_values',)

    def __init__(self, values: Mapping[str, int]):
        if not isinstance(values, Mapping):
            raise ArchError(
                'an architecture is a mapping from the names of choices to '
                f"integers, as {{'stage1': 3}}, but got {values!r}"
            )
        for name in values:
            if not isinstance(name, str):
                raise ArchError(f'the name of a choice is a string, but got {name!r}')
        self._values = {name: as_integer(value, name) for name, value in values.items()}

    def __getitem__(self, name: str) -> int:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __hash__(self) -> int:
        return hash(frozenset(self._values.items()))

    def __repr__(self) -> str:
        return f'Arch({self._values})'

    def __str__(self) -> str:
        return ', '.join(f'{name}={value}' for name, value in self.items())

    def updated(self, values: Mapping[str, int]) -> 'Arch':
        """Returns this architecture with some choices decided anew or added."""
        return Arch({**self, **values})

    def to_json(self) -> dict[str, int]:
        return dict(self._values)

    @classmethod
    def from_json(cls, obj) -> 'Arch':
        """Reads what `to_json` wrote; anything else is an `ArchError`."""
        return cls(obj)
