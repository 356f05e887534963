"""A detector's computation reallocated, from its config to a config that is better.

CR-NAS (Sec. 3) or DetNAS, on the user's own data, step by step.
"""

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

import torch
from mmengine.config import Config

from mmcr.cost.budget import budget_space, count
from mmcr.cost.complexity import measure
from mmcr.errors import UserError
from mmcr.files import write_bytes, write_json
from mmcr.report.comparison import Row, write_comparison
from mmcr.report.sketch import KINDS, draw_architectures
from mmcr.space import Arch, SearchSpace
from mmcr.workflow import recipe
from mmcr.workflow.datasets import scale_lr, search_data
from mmcr.workflow.estimate import Estimate, estimate
from mmcr.workflow.recipe import Baseline, Options
from mmcr.workflow.screen import Screen
from mmcr.workflow.steps import ROOT, Step, StepRunner

BUDGETS = ('blocks', 'macs', 'params', 'latency')
SHAPE = (800, 1333)  # of an image, where no pipeline says it
DETNAS_LIMIT = dict(type='macs', limit=300e6, shape=(224, 224))  # DetNAS, Sec. 4.1

CRNAS_STEPS = (
    Step('01_stage_supernet', 'stage supernet'),
    Step('02_stage_search', 'stage search', supernet='01_stage_supernet'),
    Step('03_op_supernet', 'operation supernet'),
    Step('04_op_search', 'operation search', supernet='03_op_supernet'),
    Step('05_baseline', 'baseline', tested=True),
    Step('06_stage_cr', 'stage CR', tested=True),
    Step('07_full_cr', 'full CR', tested=True),
)
DETNAS_STEPS = (
    Step('01_supernet', 'supernet'),
    Step('02_search', 'search', supernet='01_supernet'),
    Step('03_shufflenetv2', 'ShuffleNetV2', tested=True),
    Step('04_found', 'DetNAS', tested=True),
)


@dataclass(frozen=True)
class Settings:
    """What a user decides of a reallocation.

    Attributes:
        method: One of `recipe.METHODS`.
        recipe: One of `recipe.RECIPES`.
        archval: Images to hold out of the training set for scoring, or a COCO file
            that is held out already; ``None``: a tenth.
        budget: What networks have in common with the baseline, one of `BUDGETS`.
        latency_table: For a budget of latency.
        fast: Whether searches take the quicker form of their method.
        scale_lr: Whether the learning rate follows the batch size of this run.
        gpus: Processes of a step; ``None``: one, without torchrun.
        seed: Of the split, and of all trainings where the config has none.
        options: Of the recipe.
    """

    method: str = 'crnas'
    recipe: str = 'paper'
    archval: int | str | None = None
    budget: str = 'blocks'
    latency_table: str | None = None
    fast: bool = False
    scale_lr: bool = True
    gpus: int | None = None
    seed: int = 0
    options: Options = Options()

    def __post_init__(self) -> None:
        for name, known in (
            ('method', recipe.METHODS),
            ('recipe', recipe.RECIPES),
            ('budget', BUDGETS),
        ):
            if getattr(self, name) not in known:
                raise UserError(
                    f'{name} must be one of {", ".join(known)}, but got '
                    f'{getattr(self, name)!r}.'
                )
        if self.method == 'detnas' and self.fast:
            raise UserError(
                'A fast search takes the place of an exhaustive or a greedy one '
                '(crnas), but detnas searches by evolution, which has no fast form. '
                'Leave --fast out; fewer generations of the searcher make it shorter.'
            )
        if (self.budget == 'latency') != (self.latency_table is not None):
            raise UserError(
                'A budget of latency needs a table of the device, and only that: '
                '--budget latency --latency-table FILE, made by '
                'tools/analysis_tools/latency_table.py.'
            )
        if self.options.amp and not torch.cuda.is_available():
            raise UserError(
                '--amp trains in half precision on a GPU, but torch finds no CUDA '
                'device here. Leave it out.'
            )


class Reallocation:
    """All steps of one, in a work dir.

    Args:
        cfg: A detector's config.
        name: What the user calls it: of the config that comes out.
        work_dir: Where every step gets a folder, and the results go.
        settings: The user's.

    Raises:
        UserError: The detector cannot be searched, or a setting does not fit it.
    """

    def __init__(
        self, cfg: Config, name: str, work_dir: str | Path, settings: Settings
    ) -> None:
        self.settings = settings
        self.name = name
        self.work_dir = Path(work_dir)
        self.baseline = recipe.understand(cfg)
        self.notes = list(self.baseline.notes)
        self.shape = tuple(cfg.get('cost_shape') or image_shape(cfg))
        self._prepare(self.baseline.cfg)
        if settings.method == 'detnas':
            self.steps = list(DETNAS_STEPS)
        else:
            self.steps = [replace(s, fast=settings.fast) for s in CRNAS_STEPS]

    def _prepare(self, cfg: Config) -> None:
        """What all steps have in common."""
        if (cfg.get('randomness') or {}).get('seed') is None:
            cfg.randomness = dict(cfg.get('randomness') or {}, seed=self.settings.seed)
        scaled = scale_lr(cfg, self.settings.gpus or 1)
        if scaled is not None:
            _, sentence = scaled
            if self.settings.scale_lr and cfg.get('auto_scale_lr'):
                cfg.auto_scale_lr.enable = True
                self.notes.append(sentence)
        if not torch.cuda.is_available():
            self.notes.append(
                'There is no GPU: everything runs on the CPU, which takes the times '
                'below.'
            )

    def write(self) -> None:
        """Writes every step's config into its folder; keeps those that were edited."""
        self.data = search_data(
            self.baseline.cfg, self.settings.archval, self.work_dir, self.settings.seed
        )
        self._written_file = self.work_dir / 'configs.json'
        known = {}
        if self._written_file.exists():
            known = json.loads(self._written_file.read_text())
        texts = self._detnas() if self.settings.method == 'detnas' else self._crnas()
        for step, text in texts.items():
            path = self.work_dir / step / 'config.py'
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.exists() and path.read_text() not in (text, known.get(step)):
                self.notes.append(f'{path} was changed by hand and stays as it is.')
                continue
            write_bytes(path, text.encode())
            known[step] = text
        write_json(self._written_file, known)

    def _crnas(self) -> dict[str, str]:
        base, options = self.baseline, self.settings.options
        draft = recipe.build(
            dict(
                type=base.type,
                **recipe.narrowed(base, options.width),
                supernet='stage',
                share='prefix',
                stage_choices=recipe.stage_choices(base) or None,
            )
        )
        final = recipe.final_backbone(base, recipe.narrowed(base, options.width))
        own = draft.space.member(base.stage_blocks)
        budget = self._equal_budget(draft, final, own)
        self.space = budget_space(draft, final, budget, base.cfg.model)
        stage = recipe.supernet(base, self.data, options, 'stage', self.space)
        operation = recipe.supernet(base, self.data, options, 'operation')
        exhaustive = (
            self.space.countable and self.space.size <= recipe.MOST_SCORED
        )
        searcher = 'mmcr.ExhaustiveSearcher' if exhaustive else 'mmcr.GreedySearcher'
        greedy = dict(type='mmcr.GreedySearcher', k=3)
        found = recipe.network(base, {}, options)
        add_exact_resume(found)
        baseline = base.cfg.__deepcopy__({})
        add_exact_resume(baseline)
        stage_search = recipe.search(stage, base, options, dict(type=searcher), budget)
        op_search = recipe.search(operation, base, options, greedy)
        of_stage, of_both = ['stage_blocks'], ['stage_blocks', 'dilations']
        return {
            '01_stage_supernet': text_of(stage),
            '02_stage_search': text_of(stage_search),
            '03_op_supernet': text_of(operation, '02_stage_search', of_stage),
            '04_op_search': text_of(op_search, '02_stage_search', of_stage),
            '05_baseline': text_of(baseline),
            '06_stage_cr': text_of(found, '02_stage_search', of_stage),
            '07_full_cr': text_of(found, '04_op_search', of_both),
        }

    def _detnas(self) -> dict[str, str]:
        base, options = self.baseline, self.settings.options
        supernet, plain = recipe.detnas_supernet(base, self.data, options)
        budget = dict(DETNAS_LIMIT)
        searcher = dict(type='mmcr.EvolutionSearcher')
        search = recipe.search(supernet, base, options, searcher, budget)
        search.test_cfg.setdefault('final_backbone', {}).setdefault('shuffle', 2)
        net = recipe.build(supernet.model.backbone)
        final = search.test_cfg.final_backbone
        self.space = budget_space(net, final, search.test_cfg.budget, base.cfg.model)
        plain.model.backbone.update(final)
        add_exact_resume(plain)
        return {
            '01_supernet': text_of(supernet),
            '02_search': text_of(search),
            '03_shufflenetv2': text_of(plain),
            '04_found': text_of(plain, '02_search', ['blocks']),
        }

    def _equal_budget(
        self, draft: torch.nn.Module, final: Mapping, own: Arch
    ) -> object:
        """The baseline's own cost, as a budget."""
        kind = self.settings.budget
        if kind == 'blocks':
            return draft.space.cost_of(own)
        if kind == 'latency':
            from mmcr.space.table import CostTable

            table = CostTable.read(self.settings.latency_table)
            limit = table.total(own)
            path = os.path.abspath(self.settings.latency_table)
            return dict(type='latency', limit=limit, table=path)
        shape = self.shape if kind == 'macs' else None
        table = count(draft, final, kind, shape)
        budget = dict(type=kind, value=table.total(own))
        return dict(budget, shape=shape) if shape else budget

    def plan(self) -> str:
        """What will be done and how long it takes here, for people.

        Times a few iterations of a supernet and of the baseline; known from before
        where the configs are the same.
        """
        self.estimates = self._estimates()
        base = self.baseline
        blocks = ', '.join(map(str, base.stage_blocks))
        size = f'{self.space.size:,}' if self.space.countable else 'too many to count'
        free = SearchSpace(self.space.choices).size
        kept = 'cost as much' if self.settings.method == 'crnas' else 'meet the limit'
        lines = [
            f'Detector: {base.cfg.model.type}, backbone '
            f'{base.type.removeprefix("mmcr.CR")} of [{blocks}] blocks and '
            f'{list(base.network.out_channels)} channels.',
            f'Data: {self.data.summary}',
            f'Space: {free:,} architectures, of which {size} {kept}'
            + (f' (equal {self.settings.budget}).' if kept == 'cost as much' else '.'),
            *self.notes,
            '',
            f'{"step":22} {"time":>10}  {"memory":>9}',
        ]
        for step in self.steps:
            seconds, memory = self.estimates[step.name]
            lines.append(
                f'{step.name:22} {_duration(seconds):>10}  {memory / 2**30:5.1f} GiB'
            )
        total = sum(seconds for seconds, _ in self.estimates.values())
        lines.append(f'{"all":22} {_duration(total):>10}')
        return '\n'.join(lines)

    def _estimates(self) -> dict[str, tuple[float, int]]:
        """Seconds and bytes of each step."""
        path = self.work_dir / 'plan.json'
        configs = self._written_file.read_text()
        if path.exists():
            known = json.loads(path.read_text())
            if known['configs'] == configs:
                return {name: tuple(pair) for name, pair in known['steps'].items()}
        first, search, *others = self.steps
        # the last but one of the trained networks is of a config that needs no search
        network = next(s for s in others if s.name in ('05_baseline', '03_shufflenetv2'))
        environment = {**os.environ, 'PYTHONPATH': _path()}
        supernet, alone = (
            estimate(self.work_dir / step.name / 'config.py', environment)
            for step in (first, network)
        )
        gpus = self.settings.gpus or 1
        steps = {
            step.name: self._estimated(step, supernet, alone, gpus)
            for step in self.steps
        }
        write_json(path, dict(configs=configs, steps=steps))
        return steps

    def _estimated(
        self, step: Step, supernet: Estimate, alone: Estimate, gpus: int
    ) -> tuple[float, int]:
        if step.tested:
            return alone.training / gpus + alone.testing, alone.memory
        if not step.supernet:
            return supernet.training / gpus, supernet.memory
        loop = Config.fromfile(self.work_dir / '02_stage_search/config.py').test_cfg if (
            self.settings.method == 'crnas'
        ) else Config.fromfile(self.work_dir / '02_search/config.py').test_cfg
        blocks = sum(self.baseline.stage_blocks)
        if step.name == '04_op_search':
            candidates = 9 * blocks
        elif self.settings.method == 'detnas':
            searcher = loop.searcher
            candidates = searcher.get('population', 50) * searcher.get('generations', 20)
        else:
            candidates = self.space.size
        if step.fast:
            candidates *= 0.2
        size = supernet.batches and supernet.batch
        batches = supernet.batches + loop.get('calibration_images', 200) / 8
        return candidates * size * batches / gpus, supernet.memory

    def run(self) -> str:
        """Runs what is not done yet; returns the comparison."""
        log = self.work_dir / 'log.txt'

        def write(line: str) -> None:
            with log.open('a') as file:
                file.write(f'{datetime.now():%Y-%m-%d %H:%M:%S} {line}\n')

        seconds = {name: pair[0] for name, pair in self.estimates.items()}
        screen = Screen([step.name for step in self.steps], seconds, write)
        self.runner = StepRunner(
            self.work_dir, self.steps, screen, self.settings.gpus
        )
        self.runner.run()
        return self.conclude()

    def conclude(self) -> str:
        """Writes ``result/``: the found backbone, its detector, the comparison."""
        result = self.work_dir / 'result'
        result.mkdir(exist_ok=True)
        *_, search = (step for step in self.steps if step.supernet)
        for name in ('best_arch.json', 'best_arch.py'):
            shutil.copy(self.runner.folder(search) / name, result / name)
        *_, found = (step for step in self.steps if step.tested)
        shutil.copy(self.runner.checkpoint(found.name), result / 'best.pth')
        cfg = self.runner.config(found)
        remove_exact_resume(cfg)
        for name in ('cr_backbone', 'cr_neck_in_channels', 'work_dir'):
            cfg.pop(name, None)
        write_bytes(result / f'{self.name}_cr.py', cfg.pretty_text.encode())
        rows = [self._row(step) for step in self.steps if step.tested]
        draw_architectures([row.network for row in rows], result / 'architectures.png')
        return write_comparison(rows, result)

    def _row(self, step: Step) -> Row:
        cfg = self.runner.config(step)
        return Row(
            name=step.title,
            complexity=measure(cfg, self.shape),
            metrics=self.runner.tested_metrics(step),
            **_shown(cfg.model.backbone, self.baseline),
        )


def text_of(cfg: Config, search: str = '', names: list[str] | None = None) -> str:
    """A config file; what `names` are of the backbone comes from what was found.

    Args:
        cfg: All of the config.
        search: The step whose ``best_arch.py`` it waits for.
        names: Arguments of the backbone.
    """
    cfg = Config(dict(cfg._cfg_dict))
    cfg.pop('work_dir', None)
    if not search:
        return cfg.pretty_text
    for name in names:
        cfg.model.backbone.pop(name, None)
    lines = [f"_base_ = '../{search}/best_arch.py'  # what that search has found\n"]
    lines.append(cfg.pretty_text)
    lines += [f"model['backbone']['{n}'] = _base_.cr_backbone.{n}\n" for n in names]
    return ''.join(lines)


def add_exact_resume(cfg: Config) -> None:
    """Lets a stopped training end as it would have anyway."""
    hooks = list(cfg.get('custom_hooks') or ())
    cfg.custom_hooks = [*hooks, dict(type='mmcr.ExactResumeHook')]


def remove_exact_resume(cfg: Config) -> None:
    cfg.custom_hooks = [
        hook for hook in cfg.custom_hooks if hook['type'] != 'mmcr.ExactResumeHook'
    ]
    if not cfg.custom_hooks:
        cfg.pop('custom_hooks')


def image_shape(cfg: Config) -> tuple[int, int]:
    """Height and width of the largest image that the detector is tested on."""
    for name in ('test_dataloader', 'val_dataloader'):
        dataset = (cfg.get(name) or {}).get('dataset') or {}
        for step in dataset.get('pipeline', ()):
            if isinstance(scale := step.get('scale'), list | tuple) and len(scale) == 2:
                if all(isinstance(side, int) and side > 0 for side in scale):
                    return tuple(sorted(scale))
    return SHAPE


def _shown(backbone: Mapping, baseline: Baseline) -> dict:
    """What a row shows of a backbone's blocks."""
    if 'blocks' in backbone:
        kinds = backbone.blocks
        stage_blocks = tuple(len(stage) for stage in kinds)
        return dict(stage_blocks=stage_blocks, values=kinds, legend=KINDS)
    stage_blocks = backbone.get('stage_blocks', baseline.stage_blocks)
    dilations = backbone.get('dilations')
    return dict(stage_blocks=tuple(stage_blocks), values=dilations)


def _path() -> str:
    return os.pathsep.join(filter(None, [str(ROOT), os.environ.get('PYTHONPATH')]))


def _duration(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
