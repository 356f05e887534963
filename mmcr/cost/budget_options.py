"""Budgets as users write them: numbers, or dicts of options."""

import re
from collections.abc import Mapping
from decimal import Decimal
from numbers import Real
from pathlib import Path

from mmcr.checks import check_number, checked_shape
from mmcr.errors import UserError
from mmcr.space.cost import Budget, BudgetError, exact, plain

OPTIONS = {
    'macs': {'value', 'tolerance', 'limit', 'shape', 'of'},
    'params': {'value', 'tolerance', 'limit'},
    'latency': {'value', 'tolerance', 'limit', 'table'},
}
TOLERANCE = 1.0  # percent
SHAPE = (800, 1333)  # the largest image of the recipes
PARTS = ('backbone', 'detector')


def budget_name(budget: float | Mapping | None) -> str:
    """Returns a short name of a budget for files and folders, as ``macs_4.1e9``.

    Budgets of one search have different names unless they differ in the folder of
    their latency tables alone. None, no budget, is ``all``.

    Raises:
        UserError: It is no budget that `budget_space` takes.
    """
    if budget is None:
        return 'all'
    if not isinstance(budget, Mapping):
        check_number('budget', budget, BudgetError)
        return _short(budget)
    options = checked_budget(budget)
    parts = [options['type']]
    if 'limit' in options:
        parts.append(f'max{_short(options["limit"])}')
    else:
        parts.append(_short(options['value']))
    if options.get('of', PARTS[0]) != PARTS[0]:
        parts.append(options['of'])
    if options.get('shape', SHAPE) != SHAPE:
        parts.append('{}x{}'.format(*options['shape']))
    if options['type'] == 'latency' and Path(options['table']).stem != 'latency':
        parts.append(re.sub(r'[^\w.-]', '-', Path(options['table']).stem))
    if options.get('tolerance', TOLERANCE) != TOLERANCE:
        parts.append(f'tol{_short(options["tolerance"])}')
    return '_'.join(parts)


def checked_budget(budget: Mapping) -> dict:
    """Returns the options of a budget dict, those left out filled in.

    Raises:
        UserError: It breaks its rule (`cost.budget.budget_space`).
    """
    options = dict(budget)
    kind = options.get('type')
    if not isinstance(kind, str) or kind not in OPTIONS:
        raise UserError(
            f'the type of a budget must be one of {", ".join(OPTIONS)}, but got '
            f'{kind!r} in {options}; a budget in blocks is a plain number'
        )
    _check_names(options, OPTIONS[kind])
    for name in ('value', 'limit'):
        if name not in options:
            continue
        check_number(name, options[name], BudgetError)
        if options[name] <= 0:
            raise UserError(
                f'the {name} of a budget must be above 0, but got {options[name]}'
            )
    if 'value' in options:
        options.setdefault('tolerance', TOLERANCE)
        check_number('tolerance', options['tolerance'], BudgetError)
        if not 0 <= options['tolerance'] <= 100:
            raise UserError(
                f'tolerance must be from 0 to 100 percent, but got '
                f'{options["tolerance"]}'
            )
    if 'shape' in options:
        options['shape'] = checked_shape(options['shape'])
    if options.get('of', PARTS[0]) not in PARTS:
        raise UserError(
            f'a budget must be of the {" or the ".join(PARTS)}, but got '
            f'of={options["of"]!r}'
        )
    if not isinstance(options.get('table', ''), (str, Path)):
        raise UserError(f'table must name a file, but got {options["table"]!r}')
    return options


def bounds(options: Mapping) -> Budget:
    """Returns the costs that a budget dict, a checked one, allows."""
    if 'limit' in options:
        return Budget(0, plain(exact(options['limit'])))
    value, share = exact(options['value']), exact(options['tolerance']) / 100
    return Budget(plain(value * (1 - share)), plain(value * (1 + share)))


def _check_names(options: Mapping, known: set[str]) -> None:
    names = set(options) - {'type'}
    needed = sorted(known & {'table'}) + ['value or limit']
    has_all = names >= known & {'table'} and names & {'value', 'limit'}
    if not has_all or not names <= known:
        raise UserError(
            f'a budget of type {options["type"]} takes {", ".join(sorted(known))} and '
            f'needs {", ".join(needed)}, but got {dict(options)}'
        )
    if 'limit' in names and names & {'value', 'tolerance'}:
        raise UserError(
            f'a budget has a value, with a tolerance up and down, or a limit, from 0 '
            f'to which costs may be, but got both: {dict(options)}'
        )


def _short(number: Real) -> str:
    digits = Decimal(str(number)).normalize()
    if 1e-3 <= abs(digits) < 1e5 or digits == 0:
        return f'{digits:f}'
    return f'{digits:e}'.replace('+', '')
