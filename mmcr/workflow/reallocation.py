"""A detector's computation reallocated, from its config to a config that is better.

CR-NAS (Sec. 3) or DetNAS, on the user's own data, step by step.
"""

import copy
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from datetime import datetime
from hashlib import sha256
from pathlib import Path

import torch
from mmengine.config import Config

from mmcr.checks import (
    check_integer,
    check_kind,
    check_seed,
    checked_shape,
    is_list,
    is_number,
    near,
)
from mmcr.cost.budget import budget_space, read_budget
from mmcr.cost.complexity import measure
from mmcr.errors import UserError
from mmcr.files import read_state, write_bytes, write_json
from mmcr.registry import BUDGETS, TASK_UTILS, config_errors
from mmcr.report import write_report
from mmcr.report.comparison import Row, write_comparison
from mmcr.report.sketch import KINDS, draw_architectures
from mmcr.space import Arch, SearchSpace
from mmcr.workflow import recipe
from mmcr.workflow.baseline import Baseline, build, understand
from mmcr.workflow.datasets import scale_lr, search_data
from mmcr.workflow.estimate import Estimate, estimate
from mmcr.workflow.recipe import EXACT_RESUME, Options, add_hooks, set_amp, text_of
from mmcr.workflow.screen import Screen, duration
from mmcr.workflow.steps import Step, StepRunner, write_configs

SHAPE = (800, 1333)  # of an image, where no pipeline says it
MOST_GPUS = 1024
#: In the work dir, beside a folder for each step.
WRITTEN = ('annotations', 'configs.json', 'log.txt', 'plan.json', 'result')
UNEQUAL = 0.05  # of the baseline's cost
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
            ('budget', list(BUDGETS.module_dict)),
        ):
            if getattr(self, name) not in known:
                raise UserError(
                    f'{name} must be one of {", ".join(known)}, but got '
                    f'{getattr(self, name)!r}.'
                )
        check_integer('gpus', 1 if self.gpus is None else self.gpus)
        if (self.gpus or 1) > MOST_GPUS:
            raise UserError(f'gpus must be at most {MOST_GPUS}, but got {self.gpus}.')
        check_seed('seed', self.seed)
        check_kind('fast', self.fast, bool)
        check_kind('scale_lr', self.scale_lr, bool)
        check_kind('amp', self.options.amp, bool)
        if self.method == 'detnas' and self.budget != 'blocks':
            raise UserError(
                f'detnas searches under a limit of multiply-accumulates, not at the '
                f'cost of your backbone, but got budget={self.budget!r}. Leave it out; '
                f'the limit is search=dict(budget=dict(limit=...)) of reallocation in '
                f'the config.'
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


def settings_of(given: Mapping, **more) -> Settings:
    """Settings by name, as a config's ``reallocation`` and the command line give them.

    Raises:
        UserError: There is no such setting, or a value breaks its rule.
    """
    if not isinstance(given, Mapping):
        raise UserError(
            f'reallocation of a config must be a dict of settings, but is {given!r}.'
        )
    given = {**given, **more}
    names = [field.name for field in fields(Settings) if field.name != 'options']
    of_recipe = [field.name for field in fields(Options)]
    unknown = [name for name in given if name not in (*names, *of_recipe)]
    if unknown:
        raise UserError(
            f'reallocation of a config may have {", ".join([*names, *of_recipe])}, '
            f'but has {", ".join(map(str, unknown))}'
            f'{near(unknown[0], [*names, *of_recipe])}.'
        )
    options = Options(**{n: given[n] for n in of_recipe if n in given})
    return Settings(options=options, **{n: given[n] for n in names if n in given})


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
        self.baseline = understand(cfg)
        self.notes = list(self.baseline.notes)
        self.shape = checked_shape(cfg.get('cost_shape') or image_shape(cfg))
        self._prepare(self.baseline.cfg)
        if settings.method == 'detnas':
            self.steps = list(DETNAS_STEPS)
        else:
            self.steps = [replace(s, fast=settings.fast) for s in CRNAS_STEPS]

    def _prepare(self, cfg: Config) -> None:
        """What all steps have in common."""
        if (cfg.get('randomness') or {}).get('seed') is None:
            cfg.randomness = dict(cfg.get('randomness') or {}, seed=self.settings.seed)
        if scaled := scale_lr(cfg, self.settings.gpus or 1):
            cfg.auto_scale_lr.enable = self.settings.scale_lr
            if self.settings.scale_lr:
                self.notes.append(scaled[1])
        self._prepare_test(cfg)
        if not torch.cuda.is_available():
            self.notes.append(
                'There is no GPU: everything runs on the CPU, which takes the times '
                'below.'
            )

    def _prepare_test(self, cfg: Config) -> None:
        """Networks are compared by a test, of the validation set if need be."""
        parts = 'dataloader', 'cfg', 'evaluator'
        evaluators = cfg.get('test_evaluator') or {}
        if isinstance(evaluators, Mapping):
            evaluators = [evaluators]
        tested = all(cfg.get(f'test_{part}') for part in parts)
        if tested and not all(each.get('format_only') for each in evaluators):
            return
        if not all(cfg.get(f'val_{part}') for part in parts):
            raise UserError(
                'Networks are compared by a test, but this config has no complete one, '
                'with annotations: test_dataloader, test_evaluator and test_cfg, nor '
                'these of val. Add them.'
            )
        for part in parts:
            cfg[f'test_{part}'] = copy.deepcopy(cfg[f'val_{part}'])
        cfg.test_cfg = dict(type='TestLoop')
        self.notes.append(
            'The config has no test with annotations: networks are compared on the '
            'validation set.'
        )

    def write(self) -> None:
        """Writes every step's config into its folder; keeps those that were edited.

        Raises:
            UserError: The data do not fit, nothing can be searched, or the work dir
                has steps of other settings.
        """
        others = CRNAS_STEPS if self.settings.method == 'detnas' else DETNAS_STEPS
        if any((self.work_dir / step.name).exists() for step in others):
            raise UserError(
                f'A work dir has the steps of one method, but {self.work_dir} has '
                f'those of another than {self.settings.method}. Name another '
                f'--work-dir.'
            )
        self.data = search_data(
            self.baseline.cfg, self.settings.archval, self.work_dir, self.settings.seed
        )
        texts = self._detnas() if self.settings.method == 'detnas' else self._crnas()
        edited = write_configs(self.work_dir, texts)
        gpus = self.settings.gpus
        StepRunner(self.work_dir, self.steps, None, gpus).check()
        self.notes += [f'{path} was changed by hand and stays so.' for path in edited]

    def _crnas(self) -> dict[str, str]:
        base, options = self.baseline, self.settings.options
        draft, final = recipe.stage_draft(base, options)
        self.own = own = draft.space.member(base.stage_blocks)
        budget = self._equal_budget(draft, final, own)
        self.space = budget_space(draft, final, budget, base.cfg.model)
        exhaustive = self.space.countable and self.space.size <= recipe.MOST_SCORED
        if self.settings.budget == 'blocks' and exhaustive:
            self.notes += self._macs_apart(draft, final)
        stage = recipe.supernet(base, self.data, options, 'stage', self.space)
        operation = recipe.supernet(base, self.data, options, 'operation')
        searcher = 'mmcr.ExhaustiveSearcher' if exhaustive else 'mmcr.GreedySearcher'
        greedy = dict(type='mmcr.GreedySearcher', k=3)
        found = recipe.network(base, {}, options)
        baseline = copy.deepcopy(base.cfg)
        set_amp(baseline, options)  # as the networks that it is compared with
        for cfg in (found, baseline):
            add_hooks(cfg, EXACT_RESUME)
        stage_search = recipe.search(stage, base, options, dict(type=searcher), budget)
        op_search = recipe.search(operation, base, options, greedy)
        opened = build(operation.model.backbone)
        self.searches = {
            '02_stage_search': _work(stage_search, self.space, self.settings.fast),
            '04_op_search': _work(op_search, opened.space, self.settings.fast),
        }
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
        search.test_cfg.setdefault('final_backbone', dict(shuffle=2))
        net = build(supernet.model.backbone)
        final = search.test_cfg.final_backbone
        self.space = budget_space(net, final, search.test_cfg.budget, base.cfg.model)
        self.searches = {'02_search': _work(search, self.space)}
        plain.model.backbone.update(final)
        add_hooks(plain, EXACT_RESUME)
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
        options = dict(type=kind)
        if kind == 'macs':
            options['shape'] = self.shape
        elif kind == 'latency':
            options['table'] = os.path.abspath(self.settings.latency_table)
        table = read_budget(dict(options, limit=1)).table(draft, final)
        bound = 'limit' if kind == 'latency' else 'value'
        return {**options, bound: table.total(own)}

    def _macs_apart(self, draft: torch.nn.Module, final: Mapping) -> list[str]:
        """A note where equal blocks are not of equal cost (RegNet)."""
        macs = dict(type='macs', shape=self.shape, limit=1)
        table = read_budget(macs).table(draft, final)
        costs = [table.total(arch) / table.total(self.own) for arch in self.space]
        if max(costs) - min(costs) < UNEQUAL:
            return []
        return [
            f'Backbones of equal blocks have {min(costs):.2f} to {max(costs):.2f} of '
            f'the multiply-accumulates of yours; --budget macs keeps these equal.'
        ]

    def understanding(self) -> str:
        """How the detector, its data and the space were understood, for people."""
        base, same = self.baseline, self.settings.method == 'crnas'
        blocks = ', '.join(map(str, base.stage_blocks))
        size = f'{self.space.size:,}' if self.space.countable else 'too many to count'
        free = SearchSpace(self.space.choices).size
        kept = f'cost as much (equal {self.settings.budget})'
        lines = [
            f'Detector: {base.cfg.model.type}, backbone '
            f'{base.type.removeprefix("mmcr.CR")} of [{blocks}] blocks and '
            f'{list(base.network.out_channels)} channels.',
            f'Data: {self.data.summary}',
            f'Space: {free:,} architectures, of which {size} '
            f'{kept if same else "meet the limit"}.',
            *self.notes,
        ]
        return '\n'.join(lines)

    def plan(self) -> str:
        """Every step and how long it takes here, for people.

        Times a few iterations of a supernet and of the baseline; known from before
        where the configs, the numbers of images and the searches are the same.
        """
        self.estimates = self._estimates()
        lines = [f'{"step":22} {"time":>10}  {"memory":>9}']
        for step in self.steps:
            seconds, memory = self.estimates[step.name]
            lines.append(
                f'{step.name:22} {duration(seconds):>10}  {memory / 2**30:5.1f} GiB'
            )
        total = sum(seconds for seconds, _ in self.estimates.values())
        lines.append(f'{"all":22} {duration(total):>10}')
        return '\n'.join(lines)

    def _estimates(self) -> dict[str, tuple[float, int]]:
        """Seconds and bytes of each step."""
        path = self.work_dir / 'plan.json'
        configs = {s.name: self.work_dir / s.name / 'config.py' for s in self.steps}
        texts = ''.join(path.read_text() for path in configs.values())
        machine = self.settings.gpus, torch.cuda.is_available()
        # no config says how many images there are, and whether a search is fast
        work = [each for each, _ in self.searches.values()], self.data.summary
        digest = sha256(f'{texts}{machine}{work}'.encode()).hexdigest()
        known = read_state(path)
        steps = known.get('steps')
        if known.get('configs') == digest and _are_estimates(steps, configs):
            return {name: tuple(pair) for name, pair in steps.items()}
        # both need no search to be built
        of_supernet, of_network = (
            estimate(next(configs[s.name] for s in self.steps if s.tested == tested))
            for tested in (False, True)
        )
        steps = {
            step.name: self._estimated(step, of_network if step.tested else of_supernet)
            for step in self.steps
        }
        write_json(path, dict(configs=digest, steps=steps))
        return steps

    def _estimated(self, step: Step, timed: Estimate) -> tuple[float, int]:
        gpus = self.settings.gpus or 1
        if step.supernet:
            work, cfg = self.searches[step.name]
            batch_size = cfg.test_dataloader['batch_size']
            calibration = cfg.test_cfg.get('calibration_images', 200) / batch_size
            scoring = timed.batch * (timed.batches + calibration)
            return timed.startup + work * scoring / gpus, timed.memory
        testing = timed.startup + timed.testing / gpus if step.tested else 0
        return timed.startup + timed.training / gpus + testing, timed.memory

    def run(self, lock: int) -> str:
        """Runs what is not done yet, behind the lock of the work dir.

        Returns:
            The comparison, for people.
        """
        log = self.work_dir / 'log.txt'

        def write(line: str) -> None:
            with log.open('a') as file:
                file.write(f'{datetime.now():%Y-%m-%d %H:%M:%S} {line}\n')

        seconds = {name: pair[0] for name, pair in self.estimates.items()}
        screen = Screen([step.name for step in self.steps], seconds, write)
        self.runner = StepRunner(self.work_dir, self.steps, screen, self.settings.gpus)
        self.runner.run(lock)
        return self.conclude()

    def conclude(self) -> str:
        """Writes ``result/``: the found backbone, its detector, the comparison."""
        result = self.work_dir / 'result'
        result.mkdir(exist_ok=True)
        *_, search = (step for step in self.steps if step.supernet)
        for name in ('best_arch.json', 'best_arch.py'):
            shutil.copy(self.runner.folder(search) / name, result / name)
        if self.settings.method == 'crnas':  # what its own rank is, too
            write_report(self.runner.folder('02_stage_search'), self.own)
        *_, found = (step for step in self.steps if step.tested)
        shutil.copy(self.runner.checkpoint(found.name), result / 'best.pth')
        cfg = self.runner.config(found)
        own = self.baseline.cfg.get('custom_hooks') or []
        cfg.custom_hooks = [
            h for h in cfg.get('custom_hooks') or [] if h != EXACT_RESUME or h in own
        ]
        for name in ('cr_backbone', 'cr_neck_in_channels', 'work_dir'):
            cfg.pop(name, None)
        write_bytes(result / f'{self.name}_cr.py', cfg.pretty_text.encode())
        rows = [self._row(step) for step in self.steps if step.tested]
        draw_architectures(rows, result / 'architectures.png')
        return write_comparison(rows, result)

    def _row(self, step: Step) -> Row:
        cfg = self.runner.config(step)
        return Row(
            name=step.title,
            complexity=measure(cfg, self.shape),
            metrics=self.runner.tested_metrics(step),
            **_shown(cfg.model.backbone, self.baseline),
        )


def _are_estimates(found: object, steps: Iterable[str]) -> bool:
    return (
        isinstance(found, Mapping)
        and found.keys() == set(steps)
        and all(
            is_list(p) and len(p) == 2 and all(map(is_number, p))
            for p in found.values()
        )
    )


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
    ours = str(backbone['type']).startswith('mmcr.')
    net = build(backbone) if ours else baseline.network
    blocks, dilations, first = tuple(net.stage_blocks), backbone.get('dilations'), 1
    if dilations is not None and len(dilations) == len(blocks) + 2:
        blocks, first = (1, *blocks, 1), 0  # of MobileNetV2, with its single blocks
    strides = [
        net.stage_strides[f'stage{i}'] for i in range(first, first + len(blocks))
    ]
    return dict(stage_blocks=blocks, values=dilations, strides=strides)


def _work(cfg: Config, space: SearchSpace, fast: bool = False) -> tuple[float, Config]:
    """Of a search, in candidates scored on all of archval; with its config."""
    searcher = dict(cfg.test_cfg.searcher, space=space)
    with config_errors('The searcher must be one that is registered, but'):
        if fast:
            searcher['type'] = TASK_UTILS.get(searcher['type']).fast
        return TASK_UTILS.build(searcher).work, cfg
