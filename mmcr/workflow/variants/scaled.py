"""A reallocation that chooses the scale of the images, too.

What a network saves by smaller images it can spend on more blocks, at equal
multiply-accumulates of the whole detector. One supernet learns all scales; the stages
are searched at each, and the best of all searches meet in the run-off.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from mmengine.config import Config
from torch import nn

from mmcr.cost.budget import budget_space, read_budget
from mmcr.data.scales import at_scale, marked, sampled_scales, scaled_shape
from mmcr.errors import UserError
from mmcr.space import Arch, BudgetError, SearchSpace
from mmcr.workflow import recipe
from mmcr.workflow.estimate import Estimate
from mmcr.workflow.reallocation import Reallocation, work_of
from mmcr.workflow.recipe import text_of
from mmcr.workflow.settings import Settings
from mmcr.workflow.steps import Step

SEARCH = '02_stage_search'
TOLERANCE = 2  # percent; blocks come in whole numbers


class ScaledReallocation(Reallocation):
    """All steps of a reallocation over several scales of images; arguments as there.

    Raises:
        UserError: The pipelines name no sizes, or no architecture has the baseline's
            cost at a scale.
    """

    def __init__(
        self, cfg: Config, name: str, work_dir: str | Path, settings: Settings
    ) -> None:
        settings = replace(settings, budget='macs', dilations=False)
        super().__init__(cfg, name, work_dir, settings)
        self.scales = sorted({1.0, *settings.scales} - {1.0})
        search = self.steps[-1]
        self.steps += [
            replace(
                search,
                name=marked(SEARCH, scale),
                title=f'{search.title} at {scale:g} times the image scale',
                scale=scale,
            )
            for scale in self.scales
        ]
        for scale in self.scales:  # before anything is written
            at_scale(self.baseline.cfg, scale)

    def _equal_budget(self, draft: nn.Module, final: Mapping, own: Arch) -> dict:
        """The whole detector's own, since neck and heads see other images, too."""
        options = dict(type='macs', of='detector', shape=self.shape)
        budget = read_budget(dict(options, limit=1))
        table = budget.table(draft, final, self.baseline.cfg.model)
        return dict(options, value=table.total(own), tolerance=TOLERANCE)

    def _stage_supernet(self) -> Config:
        """With every choice, as members of all scales take them."""
        free = SearchSpace(self.space.choices)
        options = self.settings.options
        cfg = recipe.supernet(self.baseline, self.data, options, 'stage', free)
        return sampled_scales(cfg, [1.0, *self.scales])

    def _crnas(self) -> dict[str, str]:
        texts = super()._crnas()
        (_, own_search) = self.searches[SEARCH]
        draft, final = recipe.stage_draft(self.baseline, self.settings.options)
        for scale in self.scales:
            budget = own_search.test_cfg.budget.to_dict()
            budget['shape'] = scaled_shape(self.shape, scale, self.baseline.cfg)
            try:
                space = budget_space(draft, final, budget, self.baseline.cfg.model)
            except BudgetError as error:
                raise UserError(
                    f'At {scale:g} times the image scale no architecture of the space '
                    f'costs as much as yours ({error}). Leave that scale out, or widen '
                    f'the space: reallocation=dict(backbone=dict(stage_choices=...)).'
                ) from error
            name, cfg = marked(SEARCH, scale), at_scale(own_search, scale)
            cfg.train_dataloader = own_search.train_dataloader  # where others are drawn
            cfg.test_cfg.budget = budget
            cfg.test_cfg.searcher = self._searcher(space)
            self.searches[name] = work_of(cfg, space, self.settings.fast)
            texts[name] = text_of(cfg)
            height, width = budget['shape']
            size = f'{space.size:,}' if space.countable else 'too many to count'
            self.notes.append(
                f'At {scale:g} times the image scale ({height} x {width}): {size} that '
                f'cost as much.'
            )
        return texts

    def _estimated(self, step: Step, timed: Estimate) -> tuple[float, int]:
        seconds, memory = super()._estimated(step, timed)
        return seconds * step.scale**2, memory
