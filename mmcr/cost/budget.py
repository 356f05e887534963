"""What the networks to be found may cost: blocks, MACs, parameters or time.

A new kind is a subclass of `CostBudget`, registered in `BUDGETS`.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from inspect import signature
from numbers import Real

from torch import nn

from mmcr.checks import check_number, checked_shape
from mmcr.cost.complexity import macs_beside_backbone
from mmcr.cost.units import SHAPE, build_fixed, count
from mmcr.data.scales import padded_shape
from mmcr.errors import UserError
from mmcr.registry import BUDGETS
from mmcr.space.cost import Budget, BudgetError, exact, plain
from mmcr.space.detnas import SHAPE as DETNAS_SHAPE
from mmcr.space.space import SearchSpace
from mmcr.space.table import CostTable


class CostBudget(ABC):
    """What the networks to be found may cost, in the unit of its kind.

    A subclass says what architectures cost (`table`) and may take options of its own,
    those without a default being required.

    Args:
        bounds: Either ``limit``, the most that is allowed, or ``value`` and
            ``tolerance``, percent of the value up and down.
    """

    kind: str  # its name in the registry
    default_tolerance = 1.0  # percent

    def __init__(self, **bounds: float) -> None:
        for name in bounds.keys() & {'value', 'limit'}:
            check_number(name, bounds[name])
            if bounds[name] <= 0:
                raise UserError(
                    f'the {name} of a budget must be above 0, but got {bounds[name]}'
                )
        self.limit, self.value = bounds.get('limit'), bounds.get('value')
        self.tolerance = bounds.get('tolerance', self.default_tolerance)
        check_number('tolerance', self.tolerance)
        if not 0 <= self.tolerance <= 100:
            raise UserError(
                f'tolerance must be from 0 to 100 percent, but got {self.tolerance}'
            )

    @abstractmethod
    def table(
        self,
        backbone: nn.Module,
        final_backbone: Mapping,
        detector: Mapping | None = None,
    ) -> CostTable:
        """Returns what architectures cost; the arguments are `budget_space`'s."""

    def marks(self) -> list[str]:
        """Returns what `name` says of the kind's own options, where not at default."""
        return []

    @property
    def name(self) -> str:
        """A short name for files and folders, as ``macs_4.1e9``."""
        bound = _short(self.value) if self.limit is None else f'max{_short(self.limit)}'
        parts = [self.kind, bound, *self.marks()]
        if self.limit is None and self.tolerance != self.default_tolerance:
            parts.append(f'tol{_short(self.tolerance)}')
        return '_'.join(parts)

    @property
    def bounds(self) -> Budget:
        """The costs that it allows."""
        if self.limit is not None:
            return Budget(0, plain(exact(self.limit)))
        value, share = exact(self.value), exact(self.tolerance) / 100
        return Budget(plain(value * (1 - share)), plain(value * (1 + share)))

    def space(
        self,
        backbone: nn.Module,
        final_backbone: Mapping,
        detector: Mapping | None = None,
    ) -> SearchSpace:
        """Returns the members of the supernet's space that meet it."""
        space = backbone.space
        table = self.table(backbone, final_backbone, detector)
        if table.is_constant:
            raise BudgetError(
                f'a budget in {self.kind} needs choices that change them, but every '
                f'architecture of this space (of dilations, for example) has '
                f'{table.total(next(iter(space)))} {table.unit}: leave budget out'
            )
        return SearchSpace(space.choices, table, self.bounds)


@BUDGETS.register_module(name='blocks')
class BlocksBudget(CostBudget):
    """The cost in the space's own unit: blocks, weighted ones of MobileNetV2 (N)."""

    kind = 'blocks'
    default_tolerance = 0

    @property
    def name(self) -> str:
        is_exact = self.limit is None and self.tolerance == 0
        return _short(self.value) if is_exact else super().name

    def table(self, backbone, final_backbone, detector=None):
        return own_costs(backbone).cost

    def space(self, backbone, final_backbone, detector=None):
        space = own_costs(backbone)
        if space.cost is None:
            raise BudgetError(
                f'a budget in blocks ({self.name}) needs choices of numbers of blocks; '
                f'the choices of this space, dilations, add no blocks: leave budget '
                f"out, or give a dict of type 'latency'"
            )
        return space.under(self.bounds)


@BUDGETS.register_module(name='macs')
class MacsBudget(CostBudget):
    """Multiply-accumulates of one image.

    Args:
        shape: Height and width of the image in pixels.
        of: 'backbone' or the whole 'detector'.
        bounds: As in `CostBudget`.
    """

    kind = 'macs'

    def __init__(self, shape=SHAPE, of: str = 'backbone', **bounds: float) -> None:
        super().__init__(**bounds)
        self.shape, self.of = checked_shape(shape), of
        if of not in ('backbone', 'detector'):
            raise UserError(
                f'a budget must be of the backbone or the detector, but got of={of!r}'
            )

    def marks(self):
        of = [] if self.of == 'backbone' else [self.of]
        return of if self.shape == SHAPE else [*of, '{}x{}'.format(*self.shape)]

    def table(self, backbone, final_backbone, detector=None):
        shape = self.shape
        if self.of == 'detector' and detector is not None:
            shape = padded_shape(detector, shape)
        table = count(backbone, final_backbone, 'macs', shape)
        if self.of == 'backbone' or table.is_constant:
            return table
        if detector is None:
            raise UserError(
                "a budget of='detector' needs the detector of a search, but there is "
                'none here: give a budget of the backbone'
            )
        arch = next(iter(backbone.space))
        channels = build_fixed(backbone, final_backbone, arch).out_channels
        net_cfg = {**backbone.arch_cfg(arch), **final_backbone}
        fit = backbone.out_channels, channels
        others = macs_beside_backbone(detector, net_cfg, *fit, shape)
        # neck and heads cost the same for all
        return replace(table, fixed=table.fixed + others)


@BUDGETS.register_module(name='params')
class ParamsBudget(CostBudget):
    """Parameters of the backbone."""

    kind = 'params'

    def table(self, backbone, final_backbone, detector=None):
        return count(backbone, final_backbone, 'params')


def budget_space(
    backbone: nn.Module,
    final_backbone: Mapping,
    budget: float | Mapping | None,
    detector: Mapping | None = None,
) -> SearchSpace:
    """Returns the supernet's space with only the architectures of a cost.

    Args:
        backbone: As `count` takes it, and `final_backbone`.
        budget: As `read_budget` takes it; None: all architectures.
        detector: Config of the supernet's; only for costs of the whole of it.

    Raises:
        BudgetError: No architecture meets the budget, or all cost the same.
        UserError: The budget breaks its rule, or a latency table is none of this
            backbone, or the detector is not given or cannot be counted.
    """
    if budget is None:
        return own_costs(backbone)
    return read_budget(budget).space(backbone, final_backbone, detector)


def budget_name(budget: float | Mapping | None) -> str:
    """Returns a short name of a budget for files and folders, as ``macs_4.1e9``.

    Budgets of one search have different names unless they differ in the folder of
    their latency tables alone. None, no budget, is ``all``.
    """
    return 'all' if budget is None else read_budget(budget).name


def read_budget(budget: float | Mapping) -> CostBudget:
    """Builds a budget as users write it; a `UserError` where it breaks its rule.

    Args:
        budget: A number: the cost in the space's own unit, blocks, met exactly. Or a
            dict of ``type``, a name in `BUDGETS`, and the kind's arguments.
    """
    if not isinstance(budget, Mapping):
        check_number('budget', budget)
        return BlocksBudget(value=budget)
    options = dict(budget)
    kind = options.pop('type', None)
    found = BUDGETS.get(kind) if isinstance(kind, str) else None
    if found is None:
        raise UserError(
            f'the type of a budget must be one of {", ".join(BUDGETS.module_dict)}, '
            f'but got {kind!r} in {dict(budget)}; a budget in blocks is a plain number'
        )
    own = [p for p in signature(found).parameters.values() if p.kind != p.VAR_KEYWORD]
    required = {option.name for option in own if option.default is option.empty}
    known = {'value', 'tolerance', 'limit', *(option.name for option in own)}
    names = options.keys()
    bounds = names & {'value', 'tolerance', 'limit'}
    has_one = bounds in ({'value'}, {'value', 'tolerance'}, {'limit'})
    if not has_one or not required <= names <= known:
        raise UserError(
            f'a budget of type {kind} takes {", ".join(sorted(known))} and needs '
            f'{", ".join([*sorted(required), "value or limit"])} (a limit, from 0 to '
            f'which costs may be, has no value or tolerance beside it), but got '
            f'{options}'
        )
    return found(**options)


def own_costs(backbone: nn.Module) -> SearchSpace:
    """Returns the supernet's space with a cost where its choices have one.

    Numbers of blocks cost blocks. Kinds of blocks (DetNAS) cost multiply-accumulates
    of the backbone at 224x224, which DetNAS bounds; dilations cost nothing.
    """
    space = backbone.space
    if space.cost is None and backbone.supernet == 'block':
        return SearchSpace(space.choices, count(backbone, {}, 'macs', DETNAS_SHAPE))
    return space


def _short(number: Real) -> str:
    digits = Decimal(str(number)).normalize()
    if 1e-3 <= abs(digits) < 1e5 or digits == 0:
        return f'{digits:f}'
    return f'{digits:e}'.replace('+', '')
