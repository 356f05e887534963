"""A warm reallocation: it starts from the detector that the user has trained.

The stage supernet is as wide as the detector and starts as it: on the path of the
detector's own numbers of blocks, and on deeper ones, it computes what the detector
does (`mmcr.ReallocatedInit`). Trained on for a while, any of its paths is a detector
that can be used (`engine.extract`).
"""

from dataclasses import replace
from pathlib import Path

from mmengine.config import Config

from mmcr.cost.budget import ParamsBudget
from mmcr.cost.complexity import measure
from mmcr.engine.launch import add_hooks, read_config
from mmcr.errors import UserError
from mmcr.report.front import MARGIN
from mmcr.space import SearchSpace
from mmcr.workflow import recipe
from mmcr.workflow.baseline import Baseline
from mmcr.workflow.contests.finals import Finals
from mmcr.workflow.contests.warm_finals import WarmFinals
from mmcr.workflow.continuation import Continuation, continued, started
from mmcr.workflow.datasets import SearchData
from mmcr.workflow.recipe import Options
from mmcr.workflow.settings import LEAST, Settings
from mmcr.workflow.variants.grown import COLD, GrownReallocation

#: Changes of a supernet's config that are for one from nothing: `Continuation` says how
#: long and by which schedule a warm one is trained, as it does of the baseline.
OF_COLD = 'train_cfg', 'param_scheduler'
#: How a front is searched, of some thousands of members.
BRED = dict(
    population=32, generations=6, top=16, mutations=12, crossovers=12, mutation_rate=0.3
)


def warm_supernet(
    baseline: Baseline,
    data: SearchData | None,
    options: Options,
    checkpoint: str,
    space: SearchSpace | None = None,
) -> Config:
    """The config that trains a stage supernet from a trained detector.

    As wide as the detector, all of its norms in training mode, nothing frozen; its
    numbers of blocks share their first blocks.

    Args:
        baseline: The detector.
        data: As of `recipe.supernet`, and `space`.
        options: The user's; the width is the detector's.
        checkpoint: Of the detector.
    """
    how = Continuation.of(options)
    longer = replace(baseline, cfg=continued(baseline.cfg, how.length, how.rate))
    full = replace(options, width=1.0, supernet={})
    cfg = recipe.supernet(longer, data, full, 'stage', space)
    if how.sampler is not None:
        cfg.custom_hooks[0]['sampler'] = how.sampler
    if how.distillation is not None:
        kind = 'mmcr.InPlaceDistillationHook'
        add_hooks(cfg, dict(type=kind, weight=how.distillation))
    return started(recipe.merged(cfg, options.supernet), checkpoint)


def spanned(cost: float, low: float, high: float) -> tuple[float, float]:
    """Value and tolerance (percent) of a budget from `low` to `high` times a cost.

    Where one of them is 1, rounding would leave the cost itself out; not here.
    """
    value, tolerance = cost * (low + high) / 2, 100 * (high - low) / (high + low)
    if cost not in ParamsBudget(value=value, tolerance=tolerance).bounds:
        tolerance = min(100, tolerance * (1 + MARGIN))
    return value, tolerance


def without_random_blocks(baseline: Baseline, options: Options) -> Options:
    """Options under which all blocks of a warm supernet start as something useful.

    Stages without shortcuts, whose further blocks cannot start as the identity, get no
    further ones, unless the user's `stage_choices` name them.
    """
    users = options.backbone.get('stage_choices') or {}
    draft, _ = recipe.stage_draft(baseline, options)
    stages = zip(draft.space.choices, baseline.stage_blocks, baseline.network.shortcuts)
    kept = {
        choice.name: tuple(value for value in choice.values if value <= own)
        for choice, own, has_shortcut in stages
        if not has_shortcut and choice.name not in users
    }
    if not kept:
        return options
    choices = dict(stage_choices={**kept, **users})
    return replace(options, backbone={**options.backbone, **choices})


class WarmReallocation(GrownReallocation):
    """All steps of a reallocation whose supernet starts from a trained detector.

    Arguments as there.
    """

    how_it_starts = (
        'Start: the supernet is as wide as your backbone and starts from all of {}; '
        'dilations stay as they are.'
    )

    def __init__(
        self,
        cfg: Config,
        name: str,
        work_dir: str | Path,
        settings: Settings,
        checkpoint: str,
    ) -> None:
        given = settings.options.supernet
        changes = {name: v for name, v in given.items() if name not in OF_COLD}
        options = replace(settings.options, width=1.0, supernet=changes)
        settings = replace(settings, options=options, dilations=False)
        if settings.front and settings.budget in (None, 'blocks'):  # of unequal cost
            settings = replace(settings, budget='macs')
        super().__init__(cfg, name, work_dir, settings, checkpoint)
        if self.baseline.dilates_by_block:
            raise UserError(
                f'A supernet that starts from a trained detector has its dilations, '
                f'which must be one int for a stage, but its backbone has dilations='
                f'{self.baseline.arguments["dilations"]}. Give --grow, or --from '
                f'{COLD}: a supernet from nothing chooses them anew.'
            )
        if left_out := [name for name in OF_COLD if name in given]:
            self.notes.append(
                f'{" and ".join(left_out)} of supernet, which are for one from '
                f'nothing, are left out: warm=dict(length=...) says how long this one '
                f'is trained.'
            )
        options = without_random_blocks(self.baseline, options)
        self.settings = replace(self.settings, options=options)

    def _make_finals(self) -> Finals:
        return WarmFinals(
            *self._of_finals(),
            checkpoint=self.checkpoint,
            is_whole=self.is_whole,
            space=self.space,
            own=self.own,
            marked=self._marked(),
        )

    def _marked(self) -> dict[str, tuple[float, float]]:
        """By name, cost and AP of the user's trained networks, as a front has them."""

        def cost(cfg: Config) -> int:
            backbone = measure(cfg, self.shape).parts['backbone']
            return getattr(backbone, self.settings.budget)

        trained = self.settings.trained
        own = cost(self.plain) if trained else 1
        return {
            each['name']: (cost(read_config(each['config'])) / own, each['ap'])
            for each in trained
        }

    def _kept(self) -> str:
        if not (front := self.settings.front):
            return super()._kept()
        return (
            f'cost {min(front):g} to {max(front):g} times as much '
            f'({self.settings.budget})'
        )

    def _equal_budget(self, draft, final, own) -> object:
        equal = super()._equal_budget(draft, final, own)
        if not (front := self.settings.front):
            return equal
        cost = equal.pop('limit', None) or equal.pop('value')
        value, tolerance = spanned(cost, min(front), max(front))
        return {**equal, 'value': value, 'tolerance': tolerance}

    def _searcher(self, space: SearchSpace) -> dict:
        if not self.settings.front:
            return super()._searcher(space)
        start = [self.own.to_json()] if self.own in self.space else []
        return dict(type='mmcr.EvolutionSearcher', pareto=True, start=start, **BRED)

    @property
    def length(self) -> float:
        """The mean of the baseline's and the found one's, and of the one alone."""
        return self.how.length / 2 + self.how.tune + 1 / LEAST

    def _stage_supernet(self) -> Config:
        return warm_supernet(
            self.baseline,
            self.data,
            self.settings.options,
            self.checkpoint,
            self.space,
        )
