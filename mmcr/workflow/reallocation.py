"""A detector's computation reallocated: from its config to the better one of two.

CR-NAS (Sec. 3) or DetNAS, on the user's own data, step by step.
"""

import copy
import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from hashlib import sha256
from pathlib import Path

import torch
from mmengine.config import Config

from mmcr.checks import check_seed, checked_shape, is_list, is_number
from mmcr.cost.budget import budget_space, read_budget
from mmcr.data.scales import padded_shape
from mmcr.data.sets import pipelines
from mmcr.errors import UserError
from mmcr.files import read_state, write_json
from mmcr.registry import TASK_UTILS, config_errors
from mmcr.report import write_report
from mmcr.report.pages.run_page import RunPage
from mmcr.report.paired import visible
from mmcr.space import Arch, SearchSpace
from mmcr.workflow import recipe
from mmcr.workflow.baseline import build, understand
from mmcr.workflow.contests.finals import (
    CHOOSING,
    DECIDED,
    JUDGING,
    SAME_IMAGES,
    Finals,
)
from mmcr.workflow.contests.run_off import FIRST_CHOOSING_SEED, Schedule, begun
from mmcr.workflow.datasets import accumulated, scale_lr, search_data
from mmcr.workflow.estimate import Estimate, estimate
from mmcr.workflow.page_plan import page_plan
from mmcr.workflow.recipe import EXACT_RESUME, add_hooks, set_amp, text_of
from mmcr.workflow.screen import Screen, duration
from mmcr.workflow.settings import LEAST, MOST, Settings
from mmcr.workflow.steps import (
    OP_SEARCH,
    OP_SUPERNET,
    SEARCH,
    STAGE_SEARCH,
    STAGE_SUPERNET,
    SUPERNET,
    Step,
    StepRunner,
    write_configs,
)

SHAPE = (800, 1333)  # of an image, where no pipeline says it
#: In the work dir, beside a folder for each step.
WRITTEN = (
    *('annotations', 'configs.json', 'log.txt', 'plan.json', 'run_off.json'),
    *('networks', 'paths', CHOOSING, JUDGING, 'result'),
)
UNEQUAL = 0.05  # of the baseline's cost
DETNAS_LIMIT = dict(type='macs', limit=300e6, shape=(224, 224))  # DetNAS, Sec. 4.1

CRNAS_STEPS = (
    Step(STAGE_SUPERNET, 'stage supernet'),
    Step(STAGE_SEARCH, 'stage search', supernet=STAGE_SUPERNET),
    Step(OP_SUPERNET, 'operation supernet'),
    Step(OP_SEARCH, 'operation search', supernet=OP_SUPERNET),
)
DETNAS_STEPS = (
    Step(SUPERNET, 'supernet'),
    Step(SEARCH, 'search', supernet=SUPERNET),
)


class Reallocation:
    """All steps of one, in a work dir.

    Attributes:
        length: Of a training of the run-off on average, in trainings by the user's
            recipe.

    Args:
        cfg: A detector's config.
        name: What the user calls it: of the config that comes out.
        work_dir: Where every step gets a folder, and the results go.
        settings: The user's.

    Raises:
        UserError: The detector cannot be searched, or a setting does not fit it.
    """

    length = 1.0

    def __init__(
        self, cfg: Config, name: str, work_dir: str | Path, settings: Settings
    ) -> None:
        self.baseline = understand(cfg)
        if settings.budget is None:
            settings = replace(settings, budget=self.baseline.kind.default_budget)
        self.name = name
        self.work_dir = Path(work_dir)
        self.notes = []
        no_dilations = 'operation' not in self.baseline.kind.modes
        if settings.method == 'crnas' and settings.dilations and no_dilations:
            settings = replace(settings, dilations=False)
            self.notes.append('The backbone has no dilations to be searched.')
        self.settings = settings
        self.shape = checked_shape(cfg.get('cost_shape') or image_shape(cfg))
        self._prepare(self.baseline.cfg)
        steps = DETNAS_STEPS
        if settings.method == 'crnas':
            steps = CRNAS_STEPS if settings.dilations else CRNAS_STEPS[:2]
        self.steps = [replace(step, fast=settings.fast) for step in steps]

    def _prepare(self, cfg: Config) -> None:
        """What all steps have in common."""
        if (cfg.get('randomness') or {}).get('seed') is None:
            cfg.randomness = dict(cfg.get('randomness') or {}, seed=self.settings.seed)
        last = cfg.randomness['seed'] + 2 * FIRST_CHOOSING_SEED
        check_seed('randomness.seed, with room for those of the run-off,', last)
        if scaled := scale_lr(cfg, self.settings.gpus or 1):
            rule = cfg.auto_scale_lr
            if not rule.get('enable') and (batches := accumulated(cfg)) > 1:
                rule.base_batch_size /= batches  # mmengine counts one batch an update
            rule.enable = self.settings.scale_lr
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
        detnas = self.settings.method == 'detnas'
        others = [step.name for step in (CRNAS_STEPS if detnas else DETNAS_STEPS)]
        others.append('05_baseline')  # of before there was a run-off
        if found := [name for name in others if (self.work_dir / name).exists()]:
            raise UserError(
                f'A work dir has the steps of one method and one version, but '
                f'{self.work_dir} has {found[0]}, which is none of '
                f'{self.settings.method} now. Name another --work-dir.'
            )
        self.data = search_data(
            self.baseline.cfg, self.settings.archval, self.work_dir, self.settings.seed
        )
        texts = self._detnas() if self.settings.method == 'detnas' else self._crnas()
        self._check_choice()
        self.finals = self._make_finals()
        if self.finals.chosen_by_the_test:
            self.notes.append(SAME_IMAGES)
        edited = write_configs(self.work_dir, texts)
        self.configs = [self.work_dir / name / 'config.py' for name in texts]
        gpus = self.settings.gpus
        StepRunner(self.work_dir, self.steps, None, gpus).check()
        self.notes += [f'{path} was changed by hand and stays so.' for path in edited]

    def _check_choice(self) -> None:
        """Something must be left to choose, before hours are spent on a supernet."""
        if all(work <= 1 for work, _ in self.searches.values()):
            raise UserError(
                f'A search chooses between architectures, but yours, of '
                f'{list(self.baseline.stage_blocks)} blocks, is the only one of its '
                f'cost here (budget {self.settings.budget}). Widen the space '
                f'(reallocation=dict(backbone=dict(stage_choices=...))), try another '
                f'--budget or --scales, or take a deeper detector of its kind.'
            )

    def _make_finals(self) -> Finals:
        return Finals(*self._of_finals())

    def _of_finals(self) -> tuple:
        what = self.settings, self.baseline, self.plain, self.data
        return *what, self.work_dir, self.name, self.shape

    def _crnas(self) -> dict[str, str]:
        base, options = self.baseline, self.settings.options
        draft, final = recipe.stage_draft(base, options)
        self.own = own = draft.space.member(base.stage_blocks)
        budget = self._equal_budget(draft, final, own)
        self.space = budget_space(draft, final, budget, self._counted())
        if self.settings.budget == 'blocks' and _can_be_exhausted(self.space):
            self.notes += self._macs_apart(draft, final)
        stage = self._stage_supernet()
        searcher = self._searcher(self.space)
        stage_search = recipe.search(stage, base, options, searcher, budget)
        stage_search.test_cfg.setdefault('gate', self.settings.gate)
        self.searches = {
            STAGE_SEARCH: work_of(stage_search, self.space, self.settings.fast)
        }
        found, self.plain = recipe.network(base, {}, options), copy.deepcopy(base.cfg)
        set_amp(self.plain, options)  # as the networks that it is compared with
        for cfg in (found, self.plain):
            add_hooks(cfg, EXACT_RESUME)
        texts = {
            STAGE_SUPERNET: text_of(stage),
            STAGE_SEARCH: text_of(stage_search),
            'networks/baseline': text_of(self.plain),
            'networks/stage_cr': _found_text(found, STAGE_SEARCH),
        }
        if not self.settings.dilations:
            return texts
        operation = recipe.supernet(base, self.data, options, 'operation')
        greedy = dict(type='mmcr.GreedySearcher', k=3)
        op_search = recipe.search(operation, base, options, greedy)
        op_search.test_cfg.setdefault('gate', self.settings.gate)
        opened = build(operation.model.backbone)
        self.searches[OP_SEARCH] = work_of(op_search, opened.space, self.settings.fast)
        of_stage = STAGE_SEARCH, ['stage_blocks']
        return {
            **texts,
            OP_SUPERNET: text_of(operation, *of_stage),
            OP_SEARCH: text_of(op_search, *of_stage),
            'networks/full_cr': _found_text(found, OP_SEARCH),
        }

    def _counted(self) -> Mapping:
        """The detector, for budgets of the whole of it."""
        return self.baseline.cfg.model

    def _searcher(self, space: SearchSpace) -> dict:
        kind = 'ExhaustiveSearcher' if _can_be_exhausted(space) else 'GreedySearcher'
        return dict(type=f'mmcr.{kind}')

    def _kept(self) -> str:
        """What its members have in common, for people."""
        if self.settings.method == 'detnas':
            return 'meet the limit'
        if self.settings.budget == 'latency':
            return 'take at most as long'
        return f'cost as much (equal {self.settings.budget})'

    def _stage_supernet(self) -> Config:
        options = self.settings.options
        return recipe.supernet(self.baseline, self.data, options, 'stage', self.space)

    def _detnas(self) -> dict[str, str]:
        base, options = self.baseline, self.settings.options
        if base.checkpoint:
            self.notes.append(
                f'{base.checkpoint} is left out: it is no start for other blocks.'
            )
        supernet, plain = recipe.detnas_supernet(base, self.data, options)
        budget = dict(DETNAS_LIMIT)
        searcher = dict(type='mmcr.EvolutionSearcher')
        search = recipe.search(supernet, base, options, searcher, budget)
        search.test_cfg.setdefault('final_backbone', dict(shuffle=2))
        search.test_cfg.setdefault('gate', self.settings.gate)
        net = build(supernet.model.backbone)
        final = search.test_cfg.final_backbone
        self.space = budget_space(net, final, search.test_cfg.budget, base.cfg.model)
        self.searches = {SEARCH: work_of(search, self.space)}
        plain.model.backbone.update(final)
        add_hooks(plain, EXACT_RESUME)
        self.plain = plain
        return {
            SUPERNET: text_of(supernet),
            SEARCH: text_of(search),
            'networks/baseline': text_of(plain),
            'networks/found': _found_text(plain, SEARCH),
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
            options['shape'] = padded_shape(self.baseline.cfg.model, self.shape)
        elif kind == 'latency':
            options['table'] = os.path.abspath(self.settings.latency_table)
        table = read_budget(dict(options, limit=1)).table(draft, final)
        bound = 'limit' if kind == 'latency' else 'value'
        return {**options, bound: table.total(own)}

    def _macs_apart(self, draft: torch.nn.Module, final: Mapping) -> list[str]:
        """A note where equal blocks are not of equal cost (RegNet)."""
        shape = padded_shape(self.baseline.cfg.model, self.shape)
        macs = dict(type='macs', shape=shape, limit=1)
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
        base = self.baseline
        blocks = ', '.join(map(str, base.stage_blocks))
        size = f'{self.space.size:,}' if self.space.countable else 'too many to count'
        free = SearchSpace(self.space.choices).size
        lines = [
            f'Detector: {base.cfg.model.type}, backbone '
            f'{base.type.removeprefix("mmcr.CR")} of [{blocks}] blocks and '
            f'{list(base.network.out_channels)} channels.',
            f'Data: {self.data.summary}',
            f'Space: {free:,} architectures, of which {size} {self._kept()}.',
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
        for name, (seconds, memory) in self.estimates.items():
            lines.append(
                f'{name:22} {duration(seconds):>10}  {memory / 2**30:5.1f} GiB'
            )
        total = sum(seconds for seconds, _ in self.estimates.values())
        lines.append(f'{"all":22} {duration(total):>10}')
        choosing, judges = self.schedule.choosing, self.schedule.judges
        lines.append(
            f'{CHOOSING}: {choosing} trainings choose; {JUDGING}: {judges} seeds of '
            f'the winner and of your detector judge, which see a difference of '
            f'{visible(judges):.1f} times what it moves by from seed to seed '
            f'(--trainings).'
        )
        return '\n'.join(lines)

    def _estimates(self) -> dict[str, tuple[float, int]]:
        """Seconds and bytes of each step."""
        path = self.work_dir / 'plan.json'
        configs = {
            name: self.work_dir / name / 'config.py'
            for name in (*(step.name for step in self.steps), 'networks/baseline')
        }
        texts = ''.join(path.read_text() for path in configs.values())
        machine = self.settings.gpus, torch.cuda.is_available()
        # no config says how many images there are, and whether a search is fast
        work = [each for each, _ in self.searches.values()], self.data.summary
        if self.length != 1:  # the plans of all others stay what they were
            work += (self.length,)
        digest = sha256(f'{texts}{machine}{work}'.encode()).hexdigest()
        known = read_state(path)
        if known.get('configs') != digest or not _are_estimates(known, self.steps):
            # both need no search to be built
            supernet = estimate(configs[self.steps[0].name])
            network = estimate(configs['networks/baseline'])
            steps = {step.name: self._estimated(step, supernet) for step in self.steps}
            known = dict(configs=digest, steps=steps, training=self._training(network))
            write_json(path, known)
        steps = {name: tuple(pair) for name, pair in known['steps'].items()}
        seconds, memory = known['training']
        trained = sum(steps[step.name][0] for step in self.steps if not step.supernet)
        before, trainings = begun(self.work_dir), self.settings.trainings
        if not (before or trainings):
            trainings = min(MOST, max(LEAST, int(trained / seconds)))
        self.schedule = Schedule.of(trainings, self.settings.candidates, before)
        jobs = self.settings.jobs
        for name, count in (
            (CHOOSING, self.schedule.choosing),
            (JUDGING, 2 * self.schedule.judges),
        ):
            steps[name] = count * seconds / jobs, memory * jobs
        return steps

    def _estimated(self, step: Step, timed: Estimate) -> tuple[float, int]:
        gpus = self.settings.gpus or 1
        if not step.supernet:
            return timed.startup + timed.training / gpus, timed.memory
        work, cfg = self.searches[step.name]
        batch_size = cfg.test_dataloader['batch_size']
        calibration = cfg.test_cfg.get('calibration_images', 200) / batch_size
        scoring = timed.batch * (timed.batches + calibration)
        return timed.startup + work * scoring / gpus, timed.memory

    def _training(self, timed: Estimate) -> tuple[float, int]:
        """Of a network, with its test."""
        training = self.length * timed.training
        work = (training + timed.testing) / (self.settings.gpus or 1)
        return 2 * timed.startup + work, timed.memory

    def run(self, lock: int) -> str:
        """Runs what is not done yet, behind the lock of the work dir.

        Returns:
            The comparison, for people.
        """
        log = self.work_dir / 'log.txt'

        def write(line: str) -> None:
            with log.open('a') as file:
                file.write(f'{datetime.now():%Y-%m-%d %H:%M:%S} {line}\n')

        self.finals.check_start()
        seconds = {name: pair[0] for name, pair in self.estimates.items()}
        screen = Screen([step.name for step in self.steps], seconds, write)
        screen.later = seconds[CHOOSING] + seconds[JUDGING]
        page = RunPage(page_plan(self), screen.say)
        screen.finished = page.write
        page.write()
        screen.say(f'The page of this run: {page.path}')
        self.runner = StepRunner(self.work_dir, self.steps, screen, self.settings.gpus)
        self.runner.run(lock)
        screen.later = 0.0
        text = self.finals.run(
            [step for step in self.steps if step.supernet],
            self.schedule,
            screen,
            lock,
        )
        if self.settings.method == 'crnas':  # what its own rank is, too
            write_report(self.runner.folder(STAGE_SEARCH), self.own)
        screen.say('Drawing the pictures of the page ...')
        page.finish(self.finals.trained)
        return text


def _are_estimates(known: Mapping, steps: Iterable[Step]) -> bool:
    found, training = known.get('steps'), known.get('training')
    return (
        isinstance(found, Mapping)
        and found.keys() == {step.name for step in steps}
        and all(
            is_list(pair)
            and len(pair) == 2
            and all(map(is_number, pair))
            and pair[0] > 0
            for pair in (*found.values(), training)
        )
    )


def image_shape(cfg: Config) -> tuple[int, int]:
    """Height and width of the largest image that the detector is tested on."""
    for name in ('test_dataloader', 'val_dataloader'):
        for step in pipelines((cfg.get(name) or {}).get('dataset')):
            if isinstance(scale := step.get('scale'), list | tuple) and len(scale) == 2:
                if all(isinstance(side, int) and side > 0 for side in scale):
                    return tuple(sorted(scale))
    return SHAPE


def _found_text(cfg: Config, search: str) -> str:
    """A network of what a search has found, to be trained by hand."""
    return text_of(cfg, f'../{search}', list(DECIDED[search][1]))


def _can_be_exhausted(space: SearchSpace) -> bool:
    return space.countable and space.size <= recipe.MOST_SCORED


def work_of(
    cfg: Config, space: SearchSpace, fast: bool = False
) -> tuple[float, Config]:
    """Of a search, in candidates scored on all of archval; with its config."""
    searcher = dict(cfg.test_cfg.searcher, space=space)
    with config_errors('The searcher must be one that is registered, but'):
        if fast:
            searcher['type'] = TASK_UTILS.get(searcher['type']).fast
        return TASK_UTILS.build(searcher).work, cfg
