"""Checks of what users give: a rule is stated once, with the value that breaks it."""

from collections.abc import Sequence
from math import isfinite
from numbers import Integral, Real

from mmcr.errors import UserError


def is_integer(value: object, at_least: int | None = None) -> bool:
    """Whether it is an integer (a bool is none), and not below a bound."""
    return (
        isinstance(value, Integral)
        and not isinstance(value, bool)
        and (at_least is None or value >= at_least)
    )


def is_number(value: object) -> bool:
    """Whether it is a finite number; a bool is none."""
    return isinstance(value, Real) and not isinstance(value, bool) and isfinite(value)


def is_list(value: object) -> bool:
    """Whether it is a sequence; a string is none."""
    return isinstance(value, Sequence) and not isinstance(value, str)


def check_integer(
    name: str, value: object, at_least: int = 1, error: type[UserError] = UserError
) -> None:
    """Raises `error` unless `value` is an integer of at least so much."""
    if not is_integer(value, at_least):
        raise error(
            f'{name} must be an integer of at least {at_least}, but got {value!r}'
        )


def check_number(name: str, value: object, error: type[UserError] = UserError) -> None:
    """Raises `error` unless `value` is a finite number."""
    if not is_number(value):
        raise error(f'{name} must be a finite number, but got {value!r}')


def checked_shape(shape: object) -> tuple[int, int]:
    """Returns a height and a width in pixels as a tuple.

    Raises:
        UserError: `shape` is not two positive integers.
    """
    if (
        not is_list(shape)
        or len(shape) != 2
        or not all(is_integer(s, 1) for s in shape)
    ):
        raise UserError(
            f'shape must be a height and a width in pixels, but got {shape!r}'
        )
    return tuple(shape)
