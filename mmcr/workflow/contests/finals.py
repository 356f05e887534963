"""What comes after the searches: the run-off, and the network to use."""

import copy
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from mmengine.config import Config

from mmcr.cost.complexity import measure
from mmcr.engine.export import write_best
from mmcr.engine.launch import read_config
from mmcr.files import write_bytes
from mmcr.report.comparison import Contestant, Row, write_comparison
from mmcr.report.sketch import KINDS, draw_architectures
from mmcr.space import Arch
from mmcr.workflow import recipe
from mmcr.workflow.baseline import Baseline, build
from mmcr.workflow.contests.candidates import best_candidates
from mmcr.workflow.contests.contest import Contest
from mmcr.workflow.contests.run_off import BASELINE, RunOff
from mmcr.workflow.datasets import SearchData
from mmcr.workflow.settings import Settings
from mmcr.workflow.steps import Step

#: By the step of a search: its name in the names of candidates, and the arguments of
#: the backbone that it has decided.
DECIDED = {
    '02_stage_search': ('stage', ('stage_blocks',)),
    '04_op_search': ('full', ('stage_blocks', 'dilations')),
    '02_search': ('found', ('blocks',)),
}
CHOOSING, JUDGING = '05_run_off', '06_judging'
#: What the config in ``result/`` is called, after the user's own.
ENDS = dict(baseline='.py', found='_cr.py')


class Finals:
    """The run-off of a reallocation and its result.

    Args:
        settings: The user's.
        baseline: The detector as it was understood.
        plain: The config of the network that candidates compete with.
        data: Of the searches.
        work_dir: Of the whole work.
        name: What the user calls the detector.
        shape: Of an image, for costs.
    """

    def __init__(
        self,
        settings: Settings,
        baseline: Baseline,
        plain: Config,
        data: SearchData,
        work_dir: Path,
        name: str,
        shape: tuple[int, int],
    ) -> None:
        self.settings, self.baseline, self.plain = settings, baseline, plain
        self.data, self.work_dir = data, work_dir
        self.name, self.shape = name, shape

    def run(self, searches: Sequence[Step], trainings: int, screen, lock: int) -> str:
        """Trains what is not trained yet and writes ``result/``.

        Args:
            searches: The steps that searched.
            trainings: How many may be made.
            screen: Told how things go.
            lock: Of the work dir.

        Returns:
            The comparison, for people.
        """
        found = []
        for step in searches:
            name, decided = DECIDED[step.name]
            cfg = read_config(self.work_dir / step.name / 'config.py')
            found.append((name, step.name, cfg, decided))
        own = dict(self.plain.model.backbone)
        if self.settings.method == 'crnas':
            own['stage_blocks'] = self.baseline.stage_blocks
        count = self.settings.candidates
        best = best_candidates(found, self.work_dir, count, own)
        self.candidates = {candidate.name: candidate for candidate in best}
        judged = {each.name: self._network(each.decided) for each in best}
        judged[BASELINE] = self.plain
        chosen = {name: self._held_out(cfg) for name, cfg in judged.items()}
        of_both = self._large(), screen, self.settings.gpus, self.settings.jobs
        choosing = Contest(self.work_dir / CHOOSING, chosen, *of_both)
        judging = Contest(self.work_dir / JUDGING, judged, *of_both)
        names, seed = list(self.candidates), self.plain.randomness.seed
        run_off = RunOff(self.work_dir, choosing, judging, names, trainings, seed)
        run_off.run(lock)
        return self._write(run_off)

    def _network(self, decided: Mapping) -> Config:
        """The user's detector with an architecture that was found."""
        if self.settings.method == 'crnas':
            return recipe.network(self.baseline, decided, self.settings.options)
        cfg = copy.deepcopy(self.plain)
        cfg.model.backbone.update(decided)
        return cfg

    def _held_out(self, cfg: Config) -> Config:
        """Trained without the images of archval, and tested on these."""
        cfg = copy.deepcopy(cfg)
        cfg.train_dataloader = copy.deepcopy(self.data.train_dataloader)
        cfg.test_dataloader = copy.deepcopy(self.data.archval_dataloader)
        cfg.test_evaluator = copy.deepcopy(self.data.evaluator)
        return cfg

    def _large(self) -> dict | None:
        """The backbone whose parts all networks start from; DetNAS's have no such."""
        if self.settings.method == 'detnas':
            return None
        draft, _ = recipe.stage_draft(self.baseline, self.settings.options)
        most = Arch({choice.name: max(choice.values) for choice in draft.space.choices})
        large = self._network(dict(stage_blocks=draft.arch_cfg(most)['stage_blocks']))
        return dict(_delete_=True, **large.model.backbone)

    def _write(self, run_off: RunOff) -> str:
        """Writes ``result/``: what the verdict says to use, and the comparison."""
        result = self.work_dir / 'result'
        result.mkdir(exist_ok=True)
        difference = run_off.difference()
        winner = self.candidates[run_off.winner]
        use = run_off.winner if difference.kind == 'ahead' else BASELINE
        written = {name: f'{self.name}{end}' for name, end in ENDS.items()}
        for name in ('best_arch.json', 'best_arch.py', *written.values()):
            (result / name).unlink(missing_ok=True)  # of fewer seeds
        if use != BASELINE:
            write_best(result, winner.trial, winner.backbone)
        checkpoint = run_off.judging.checkpoint(use, run_off.seeds[0])
        shutil.copy(checkpoint, result / 'best.pth')
        text = self._usable(run_off.judging.networks[use]).pretty_text
        config = written['baseline' if use == BASELINE else 'found']
        write_bytes(result / config, text.encode())
        rows = [
            self._row('baseline', BASELINE, run_off),
            self._row('found', run_off.winner, run_off),
        ]
        draw_architectures(rows, result / 'architectures.png')
        return write_comparison(
            rows,
            result,
            difference,
            self._contestants(run_off),
            f'{config} and best.pth',
        )

    def _usable(self, cfg: Config) -> Config:
        """Without what was there for the contest."""
        cfg = copy.deepcopy(cfg)
        own = self.baseline.cfg.get('custom_hooks') or []
        cfg.custom_hooks = [
            hook
            for hook in cfg.get('custom_hooks') or []
            if hook != recipe.EXACT_RESUME or hook in own
        ]
        for name in ('cr_backbone', 'cr_neck_in_channels', 'work_dir'):
            cfg.pop(name, None)
        return cfg

    def _row(self, title: str, name: str, run_off: RunOff) -> Row:
        cfg = run_off.judging.networks[name]
        return Row(
            name=title,
            complexity=measure(cfg, self.shape),
            metrics=run_off.metrics(name),
            **_shown(cfg.model.backbone, self.baseline),
        )

    def _contestants(self, run_off: RunOff) -> list[Contestant]:
        aps = run_off.chosen_by()
        blocks = ' '.join(map(str, self.baseline.stage_blocks))
        known = [Contestant(BASELINE, blocks, aps=aps.get(BASELINE, ()))]
        for name, each in self.candidates.items():
            values = [_short(value) for value in each.decided.values()]
            text, scores = '; '.join(values), (each.trial.score, each.expected)
            known.append(Contestant(name, text, *scores, aps.get(name, ())))
        return known


def _short(value: object) -> str:
    """Blocks of a stage together: ``111 1112``; of plain numbers ``3 4 6 3``."""
    if any(isinstance(each, tuple | list) for each in value):
        stages = ([each] if isinstance(each, int) else each for each in value)
        return ' '.join(''.join(map(str, stage)) for stage in stages)
    return ' '.join(map(str, value))


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
