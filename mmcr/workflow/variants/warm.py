"""A warm reallocation: it starts from the detector that the user has trained.

The stage supernet is as wide as the detector and starts as it: on the path of the
detector's own numbers of blocks, and on deeper ones, it computes what the detector
does (`mmcr.ReallocatedInit`). Trained on for a while, any of its paths is a detector
that can be used (`engine.extract`).
"""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from mmengine.config import Config

from mmcr.cost.complexity import measure
from mmcr.engine.launch import add_hooks, read_config
from mmcr.errors import UserError
from mmcr.models.weights.report import ChainReport
from mmcr.report.front import MARGIN
from mmcr.space import SearchSpace
from mmcr.workflow import recipe
from mmcr.workflow.baseline import Baseline, checkpoint_of
from mmcr.workflow.contests.finals import Finals
from mmcr.workflow.contests.warm_finals import WarmFinals
from mmcr.workflow.continuation import (
    Continuation,
    absolute,
    continued,
    started,
    unlike,
)
from mmcr.workflow.datasets import SearchData
from mmcr.workflow.estimate import Estimate
from mmcr.workflow.reallocation import Reallocation
from mmcr.workflow.recipe import Options
from mmcr.workflow.settings import LEAST, Settings

COLD = 'none'  # in the place of a checkpoint: the config's own is left out
#: Changes of a supernet's config that are for one from nothing: `Continuation` says how
#: long and by which schedule a warm one is trained, as it does of the baseline.
OF_COLD = 'train_cfg', 'param_scheduler'
#: How a front is searched, of some thousands of members.
BRED = dict(
    population=32, generations=6, top=16, mutations=12, crossovers=12, mutation_rate=0.3
)
SEEN = (
    'The checkpoint may have been trained on the images of archval, which favours '
    'architectures like its own: name images that it has not seen by --archval FILE.'
)


def wanted(cfg: Config, settings: Settings) -> str | None:
    """The checkpoint of the detector that a reallocation is to start from.

    That of the settings, else what the config starts all of the model from, which
    means nothing to DetNAS's networks.
    """
    own = checkpoint_of(cfg) if settings.method == 'crnas' else None
    checkpoint = settings.checkpoint or own
    if checkpoint not in (None, COLD) and settings.scales:
        raise UserError(
            f'Scales of images are searched in a supernet from nothing, but this one '
            f'would start from {checkpoint}. Give --from {COLD}, or leave scales out.'
        )
    if checkpoint in (None, COLD):
        if settings.front:
            raise UserError(
                'A front is one of networks that can be used as the supernet has them, '
                'which a trained detector starts. Name its checkpoint by --from, or '
                'leave --front out.'
            )
        return None
    return absolute(checkpoint)


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


def _said(depths: Sequence[ChainReport]) -> str:
    return ', '.join(
        f'{each.name} {each.source_blocks} there, {each.blocks} here' for each in depths
    )


class WarmReallocation(Reallocation):
    """All steps of a reallocation that starts from a trained detector; args as there.

    Args:
        checkpoint: Of the detector, from `wanted`.
    """

    def __init__(
        self,
        cfg: Config,
        name: str,
        work_dir: str | Path,
        settings: Settings,
        checkpoint: str,
    ) -> None:
        if settings.method != 'crnas':
            raise UserError(
                f'A trained detector starts a supernet of its own blocks (crnas), but '
                f'got method={settings.method!r}. Leave it out, or give --from {COLD}.'
            )
        given = settings.options.supernet
        changes = {name: v for name, v in given.items() if name not in OF_COLD}
        options = replace(settings.options, width=1.0, supernet=changes)
        settings = replace(settings, options=options, dilations=False)
        if settings.front and settings.budget in (None, 'blocks'):  # of unequal cost
            settings = replace(settings, budget='macs')
        super().__init__(cfg, name, work_dir, settings)
        if self.baseline.dilates_by_block:
            raise UserError(
                f'A supernet that starts from a trained detector has its dilations, '
                f'which must be one int for a stage, but its backbone has dilations='
                f'{self.baseline.arguments["dilations"]}. Give --from {COLD}: a '
                f'supernet from nothing chooses them anew.'
            )
        if left_out := [name for name in OF_COLD if name in given]:
            self.notes.append(
                f'{" and ".join(left_out)} of supernet, which are for one from '
                f'nothing, are left out: warm=dict(length=...) says how long this one '
                f'is trained.'
            )
        options = without_random_blocks(self.baseline, options)
        self.settings = replace(self.settings, options=options)
        self.checkpoint, self.how = checkpoint, Continuation.of(options)
        self._check_checkpoint()

    def _check_checkpoint(self) -> None:
        try:
            others, depths = unlike(self.baseline, self.checkpoint)
        except UserError as error:
            if self.settings.checkpoint:
                raise
            raise UserError(
                f'{error} It is what the config starts all of its model from; --from '
                f'{COLD} leaves it out.'
            ) from error
        self.is_whole = not others and not depths
        if depths and self.settings.checkpoint:
            raise UserError(
                f'--from takes a checkpoint of this detector, but {self.checkpoint} '
                f'has other numbers of blocks: {_said(depths)}. Give the config that '
                f'it was trained with.'
            )
        if others and self.settings.checkpoint:
            raise UserError(
                f'--from takes a checkpoint of this detector, but in {self.checkpoint} '
                f'{len(others)} weights of its neck and heads are missing or of '
                f'another shape, such as {others[0]}. Give the config that it was '
                f'trained with.'
            )
        self.notes.append(
            f'Start: the supernet is as wide as your backbone and starts from all of '
            f'{self.checkpoint}; dilations stay as they are.'
        )
        if depths:
            self.notes.append(
                f'It has other numbers of blocks ({_said(depths)}), so that your '
                f'detector starts from it as the networks that are found do: block by '
                f'block, new blocks as the identity.'
            )
        if others:
            self.notes.append(
                f'{len(others)} weights of neck and heads are not in it, or of another '
                f'shape ({others[0]}): these start at random.'
            )
        if not os.path.isfile(str(self.settings.archval)):  # drawn of the training's
            self.notes.append(SEEN)

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
        low, high = min(front), max(front)
        # wide enough for a bound that is a cost, which rounding would leave out
        tolerance = min(100, 100 * (high - low) / (high + low) * (1 + MARGIN))
        return {**equal, 'value': cost * (low + high) / 2, 'tolerance': tolerance}

    def _searcher(self, space: SearchSpace) -> dict:
        if not self.settings.front:
            return super()._searcher(space)
        start = [self.own.to_json()] if self.own in self.space else []
        return dict(type='mmcr.EvolutionSearcher', pareto=True, start=start, **BRED)

    def _training(self, timed: Estimate) -> tuple[float, int]:
        """The mean of the baseline's and the found one's, and of the one alone."""
        tuned = self.how.length / 2 + self.how.tune + 1 / LEAST
        return super()._training(
            replace(timed, iterations=round(tuned * timed.iterations))
        )

    def _stage_supernet(self) -> Config:
        return warm_supernet(
            self.baseline,
            self.data,
            self.settings.options,
            self.checkpoint,
            self.space,
        )
