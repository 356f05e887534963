"""A reallocation that chooses the scale of the images, too.

What a network saves by smaller images it can spend on more blocks, at equal
multiply-accumulates of the whole detector, or in the time that it takes on a device.
One supernet learns all scales; the stages are searched at each, and the best of all
searches meet in the run-off.
"""

import copy
import os
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from mmengine.config import Config
from torch import nn

from mmcr.cost.budget import budget_space, read_budget
from mmcr.data.scales import at_scale, marked, sampled_scales, scaled_shape
from mmcr.errors import UserError
from mmcr.models.detector import refitted
from mmcr.space import Arch, BudgetError, SearchSpace
from mmcr.space.table import CostTable
from mmcr.workflow import recipe
from mmcr.workflow.estimate import Estimate
from mmcr.workflow.reallocation import Reallocation, work_of
from mmcr.workflow.recipe import text_of
from mmcr.workflow.settings import Settings
from mmcr.workflow.steps import STAGE_SEARCH, Step

TOLERANCE = 2  # percent; blocks come in whole numbers


class ScaledReallocation(Reallocation):
    """All steps of a reallocation over several scales of images; arguments as there.

    A budget of latency takes a table of whole detectors for each scale: of the config's
    own the one that is named (``latency.json``), of others those beside it
    (``latency_x0.75.json``).

    Raises:
        UserError: The pipelines name no sizes, or no architecture has the baseline's
            cost at a scale.
    """

    def __init__(
        self, cfg: Config, name: str, work_dir: str | Path, settings: Settings
    ) -> None:
        searched = settings.dilations
        budget = settings.budget or 'macs'
        settings = replace(settings, budget=budget, dilations=False)
        super().__init__(cfg, name, work_dir, settings)
        if searched:
            self.notes.append('Dilations are not searched where scales are.')
        self.scales = sorted({1.0, *settings.scales} - {1.0})
        search = self.steps[-1]
        self.steps += [
            replace(
                search,
                name=marked(STAGE_SEARCH, scale),
                title=f'{search.title} at {scale:g} times the image scale',
                scale=scale,
            )
            for scale in self.scales
        ]
        sampled_scales(self.baseline.cfg, self.scales)  # before anything is written
        for scale in self.scales:
            at_scale(self.baseline.cfg, scale)

    def _budget(self, scale: float, value: float) -> dict:
        """Of the whole detector, since neck and heads see other images, too."""
        shape = scaled_shape(self.shape, scale, self.baseline.cfg)
        if self.settings.budget == 'latency':
            table = self._table_at(scale, shape)
            return dict(type='latency', table=table, limit=value)
        options = dict(type='macs', of='detector', shape=shape)
        return dict(options, value=value, tolerance=TOLERANCE)

    def _table_at(self, scale: float, shape: tuple[int, int]) -> str:
        """The file of a scale's table, looked at."""
        path = Path(os.path.abspath(self.settings.latency_table))
        path = path.with_name(marked(path.stem, scale) + path.suffix)
        height, width = shape
        remedy = (
            f'Measure it: tools/analysis_tools/latency_table.py CONFIG --of detector '
            f'--shape {height} {width} --out {path}, where CONFIG is '
            f'{STAGE_SEARCH}/config.py of this reallocation with --budget macs '
            f'--write-only.'
        )
        if not path.is_file():
            raise UserError(
                f'Every image scale has a latency table of its own, but for '
                f'{scale:g} there is no file {path}. {remedy}'
            )
        table = CostTable.read(path)
        detector = self.baseline.cfg.model.type
        found = table.shape, table.about.get('detector')
        if found != (shape, detector):
            raise UserError(
                f'The latency table of image scale {scale:g} must be of the whole '
                f'{detector} at {height} x {width}, but {path} is of the '
                f'{found[1] or "backbone"} at {found[0]}. {remedy}'
            )
        return str(path)

    def _equal_budget(self, draft: nn.Module, final: Mapping, own: Arch) -> dict:
        table = read_budget(self._budget(1.0, 1)).table(draft, final, self._counted())
        self.total = table.total(own)
        return self._budget(1.0, self.total)

    @cached_property
    def _drafted(self) -> tuple[nn.Module, dict]:
        """As of `recipe.stage_draft`."""
        return recipe.stage_draft(self.baseline, self.settings.options)

    def _counted(self) -> Mapping:
        """The detector as wide as the supernet, whose networks are then counted."""
        draft, _ = self._drafted
        model = copy.deepcopy(self.baseline.cfg.model)
        full = self.baseline.network.out_channels
        model.update(refitted(model, full, draft.out_channels))
        return model

    def _stage_supernet(self) -> Config:
        """With every choice, as members of all scales take them."""
        free = SearchSpace(self.space.choices)
        options = self.settings.options
        cfg = recipe.supernet(self.baseline, self.data, options, 'stage', free)
        self.supernet = sampled_scales(cfg, [1.0, *self.scales])
        return self.supernet

    def _crnas(self) -> dict[str, str]:
        texts = super()._crnas()
        for scale in self.scales:
            space, budget = self._space(scale)
            searcher, options = self._searcher(space), self.settings.options
            cfg = recipe.search(self.supernet, self.baseline, options, searcher, budget)
            cfg = at_scale(cfg, scale)
            cfg.train_dataloader = self.supernet.train_dataloader  # of all scales
            cfg.test_cfg.setdefault('gate', self.settings.gate)
            name = marked(STAGE_SEARCH, scale)
            self.searches[name] = work_of(cfg, space, self.settings.fast)
            texts[name] = text_of(cfg)
            height, width = scaled_shape(self.shape, scale, self.baseline.cfg)
            size = f'{space.size:,}' if space.countable else 'too many to count'
            self.notes.append(
                f'At {scale:g} times the image scale ({height} x {width}): {size} that '
                f'{self._kept()}.'
            )
        return texts

    def _space(self, scale: float) -> tuple[SearchSpace, dict]:
        """The architectures of the baseline's cost at a scale, and that budget."""
        draft, final = self._drafted
        budget = self._budget(scale, self.total)
        try:
            return budget_space(draft, final, budget, self._counted()), budget
        except BudgetError as error:
            raise UserError(
                f'At {scale:g} times the image scale there is none in the space of '
                f'those that {self._kept()}: {error}. Leave that scale out, or widen '
                f'the space: reallocation=dict(backbone=dict(stage_choices=...)).'
            ) from error

    def _estimated(self, step: Step, timed: Estimate) -> tuple[float, int]:
        seconds, memory = super()._estimated(step, timed)
        return seconds * step.scale**2, memory
