"""What comes after the searches: the run-off, and the network to use."""

import copy
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path

from mmengine.config import Config
from torch import nn

from mmcr.cost.complexity import measure
from mmcr.data.checks import image_files
from mmcr.data.coco import forget
from mmcr.data.scales import at_scale, marked, scaled_shape
from mmcr.engine.export import write_best
from mmcr.engine.launch import config_text, read_config
from mmcr.errors import UserError
from mmcr.files import file_digest, write_bytes, write_json
from mmcr.models.weights.checkpoint import read_weights, write_checkpoint
from mmcr.report.comparison import Contestant, Row, in_short, write_comparison
from mmcr.report.sketch import KINDS, draw_architectures
from mmcr.space import Arch
from mmcr.workflow import recipe
from mmcr.workflow.baseline import Baseline, build
from mmcr.workflow.contests.candidates import Candidate, Searched, best_candidates
from mmcr.workflow.contests.contest import Contest
from mmcr.workflow.contests.run_off import BASELINE, RunOff, Schedule, begun
from mmcr.workflow.datasets import SearchData
from mmcr.workflow.settings import Settings
from mmcr.workflow.steps import OP_SEARCH, SEARCH, STAGE_SEARCH, Step

#: By the step of a search: its name in the names of candidates, and the arguments of
#: the backbone that it has decided.
DECIDED = {
    STAGE_SEARCH: ('stage', ('stage_blocks',)),
    OP_SEARCH: ('full', ('stage_blocks', 'dilations')),
    SEARCH: ('found', ('blocks',)),
}
CHOOSING, JUDGING = '05_run_off', '06_judging'
SAME_IMAGES = (
    'Images of archval are among those of the test: the verdict rests on images that '
    'the networks were chosen on, which favours what was found.'
)
#: What the config in ``result/`` is called, after the user's own.
ENDS = dict(baseline='.py', found='_cr.py')


class Finals:
    """The run-off of a reallocation and its result.

    Attributes:
        about: What the comparison says of its rows.
        trained: After `run`, of the baseline and of what was found, by these names, the
            config and the checkpoint of the first seed that judged.

    Args:
        settings: The user's.
        baseline: The detector as it was understood.
        plain: The config of the network that candidates compete with.
        data: Of the searches.
        work_dir: Of the whole work.
        name: What the user calls the detector.
        shape: Of an image, for costs.
    """

    about = ''

    nothing = (
        'The searches found nothing but the architecture of your detector under this '
        'budget: keep it, or search a wider space.'
    )

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
        score = str(settings.options.search.get('score', ''))
        self.kind = 'segm' if 'segm' in score else 'bbox'
        self.evaluators = unrounded(plain.test_evaluator, self.kind)

    def run(
        self, searches: Sequence[Step], schedule: Schedule, screen, lock: int
    ) -> str:
        """Trains what is not trained yet and writes ``result/``.

        Args:
            searches: The steps that searched.
            schedule: Of the run-off.
            screen: Told how things go.
            lock: Of the work dir.

        Returns:
            The comparison, for people.

        Raises:
            UserError: The searches found nothing but the baseline.
        """
        self.screen = screen
        best = self._best(searches, schedule)
        self.candidates = {candidate.name: candidate for candidate in best}
        judged = self._networks(best)
        for cfg in judged.values():
            cfg.test_evaluator = copy.deepcopy(self.evaluators)
        chosen = {name: self._held_out(cfg) for name, cfg in judged.items()}
        for networks in (judged, chosen):
            for each in best:
                networks[each.name] = at_scale(networks[each.name], each.scale)
        of_both = self.large(), screen, self.settings.gpus, self.settings.jobs
        metric = f'coco/{self.kind}_mAP'
        choosing = Contest(self.work_dir / CHOOSING, chosen, *of_both, metric)
        judging = Contest(
            self.work_dir / JUDGING, judged, *of_both, metric, self.given()
        )
        names, seed = list(self.candidates), self.plain.randomness.seed
        run_off = RunOff(choosing, judging, names, schedule, seed)
        run_off.run(lock)
        return self._write(run_off, self._beside(run_off, lock))

    def _networks(self, best: Sequence[Candidate]) -> dict[str, Config]:
        """By name what is trained and tested."""
        networks = {each.name: self._network(each.decided) for each in best}
        return {**networks, BASELINE: self.plain}

    def given(self) -> dict[str, str]:
        """Of those, by name the checkpoints of such as are tested alone."""
        return {}

    def _beside(self, run_off: RunOff, lock: int) -> list[Row]:
        """What the comparison shows beside the two that the verdict is on."""
        return []

    def check_start(self) -> None:
        """Reads the public weights that networks start from, before anything is run.

        Raises:
            CheckpointError: They cannot be read.
        """
        init = (self.large() or {}).get('init_cfg')
        if isinstance(init, Mapping) and init.get('checkpoint'):
            read_weights(init['checkpoint'])

    @cached_property
    def chosen_by_the_test(self) -> bool:
        """Whether networks are tested on images of archval."""
        tested, held = (
            image_files(loader['dataset'], 'test_dataloader')
            for loader in (self.plain.test_dataloader, self.data.archval_dataloader)
        )
        forget()
        if tested is not None and held is not None:
            return not tested.isdisjoint(held)
        files = {each.get('ann_file') for each in self.evaluators}
        own = self.data.evaluator.get('ann_file')
        paths = {os.path.realpath(file) for file in files if file}
        return bool(own) and os.path.realpath(own) in paths

    def _best(self, searches: Sequence[Step], schedule: Schedule) -> list[Candidate]:
        """The candidates; as long as the searches are the same, the same ones."""
        journals = {s.name: self.work_dir / s.name / 'trials.jsonl' for s in searches}
        digests = {name: file_digest(path) for name, path in journals.items()}
        known = begun(self.work_dir)
        if known.get('searches') == digests:
            best = [Candidate.from_json(each) for each in known['candidates']]
        else:
            best = self._searched(searches)
        if not best:
            raise UserError(self.nothing)
        state = dict(searches=digests, candidates=[each.to_json() for each in best])
        state.update(rounds=schedule.rounds, judges=schedule.judges)
        write_json(self.work_dir / 'run_off.json', state)
        return best

    def _searched(self, searches: Sequence[Step]) -> list[Candidate]:
        found = []
        for step in searches:
            at = {marked(name, step.scale): known for name, known in DECIDED.items()}
            kind, decided = at[step.name]
            name = marked(kind, step.scale)
            cfg = read_config(self.work_dir / step.name / 'config.py')
            found.append(Searched(name, step.name, cfg, decided, step.scale))
        own = dict(self.plain.model.backbone)
        if self.settings.method == 'crnas':
            own['stage_blocks'] = self.baseline.stage_blocks
        count = self.settings.candidates
        return best_candidates(found, self.work_dir, count, own, self._competes)

    def _competes(self, arch: Arch) -> bool:
        """Whether an architecture costs as much as the baseline."""
        return True  # the searches have looked at no others

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

    def large(self) -> dict | None:
        """The backbone whose parts all networks start from; DetNAS's have no such."""
        if self.settings.method == 'detnas':
            return None
        draft, _ = recipe.stage_draft(self.baseline, self.settings.options)
        large = self._network(most_blocks(draft))
        return dict(_delete_=True, **large.model.backbone)

    def _write(self, run_off: RunOff, beside: Sequence[Row]) -> str:
        """Writes ``result/``: what the verdict says to use, and the comparison."""
        result = self.work_dir / 'result'
        result.mkdir(exist_ok=True)
        difference = run_off.difference()
        winner = self.candidates[run_off.winner]
        use = run_off.winner if difference.kind == 'ahead' else BASELINE
        config = self._write_network(result, run_off, use)
        shown = dict(baseline=BASELINE, found=run_off.winner)
        self.trained = {
            title: run_off.judging.trained(name, run_off.seeds[0])
            for title, name in shown.items()
        }
        rows = [
            self._row(
                title,
                run_off.judging.networks[name],
                run_off.metrics(name),
                1.0 if name == BASELINE else winner.scale,
            )
            for title, name in shown.items()
        ]
        draw_architectures(rows, result / 'architectures.png')
        rows = self._costed(rows, run_off) + list(beside)
        warnings = self._warnings({row.name: row for row in rows})
        return write_comparison(
            rows,
            result,
            difference,
            self._contestants(run_off),
            f'{config} and best.pth',
            ' '.join([*self._sizes(winner.scale), *warnings]),
            self.about,
        )

    def _write_network(self, result: Path, run_off: RunOff, use: str) -> str:
        """Writes what to use and removes what fewer seeds said; returns the config."""
        named = {name: f'{self.name}{end}' for name, end in ENDS.items()}
        config = named['baseline' if use == BASELINE else 'found']
        text = config_text(self._usable(self._published(run_off.judging, use)))
        checkpoint = run_off.judging.checkpoint(use, run_off.seeds[0])
        write_checkpoint(result / 'best.pth', Path(checkpoint).read_bytes())
        write_bytes(result / config, text.encode())
        old = {*named.values(), 'best_arch.json', 'best_arch.py'} - {config}
        if use != BASELINE:
            winner = self.candidates[use]
            write_best(result, winner.trial, winner.backbone)
            old -= {'best_arch.json', 'best_arch.py'}
        for name in old:
            (result / name).unlink(missing_ok=True)
        return config

    def _sizes(self, scale: float) -> Iterator[str]:
        """What to know of the images that the table's costs are for."""
        if scale != 1:
            own, other = (
                scaled_shape(self.shape, each, self.plain) for each in (1, scale)
            )
            yield (
                f'Found takes images of {other[0]} x {other[1]}, {scale:g} times '
                f'yours of {own[0]} x {own[1]}: its costs are for these.'
            )

    def _published(self, judging: Contest, name: str) -> Config:
        """The config for ``result/``."""
        return judging.networks[name]

    def _costed(self, rows: list[Row], run_off: RunOff) -> list[Row]:
        """With what they took, where the table says it."""
        return rows

    def _warnings(self, rows: Mapping[str, Row]) -> Iterator[str]:
        """What to know of the verdict."""
        if self.kind == 'segm':
            yield 'Compared by the AP of masks; the table has that of boxes.'
        if self.chosen_by_the_test:
            yield SAME_IMAGES

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

    def _row(
        self, title: str, cfg: Config, metrics: Mapping, scale: float = 1.0
    ) -> Row:
        shape = self.shape
        if self.settings.scales:  # as they are padded, which differs between scales
            shape = scaled_shape(shape, scale, cfg)
        return Row(
            name=title,
            complexity=measure(cfg, shape),
            metrics=metrics,
            **_shown(cfg.model.backbone, self.baseline),
        )

    def _contestants(self, run_off: RunOff) -> list[Contestant]:
        aps = run_off.chose
        blocks = ' '.join(map(str, self.baseline.stage_blocks))
        known = [Contestant(BASELINE, blocks, aps=aps.get(BASELINE, ()))]
        for name, each in self.candidates.items():
            text = in_short(each.decided, each.scale)
            scores = each.trial.score, each.expected
            known.append(Contestant(name, text, *scores, aps.get(name, ())))
        return known


def most_blocks(draft: nn.Module) -> dict:
    """Of a stage supernet, the arguments of a network with all its blocks."""
    most = Arch({choice.name: max(choice.values) for choice in draft.space.choices})
    return dict(stage_blocks=draft.arch_cfg(most)['stage_blocks'])


def unrounded(evaluators: Mapping | Sequence[Mapping], kind: str) -> list[dict]:
    """Evaluators that do not round AP to a tenth of a point, as mmdet's does.

    Args:
        evaluators: The user's.
        kind: Of the AP that is wanted: ``bbox`` or ``segm``.

    Raises:
        UserError: None of them says it.
    """
    found = [evaluators] if isinstance(evaluators, Mapping) else evaluators
    made, known = [], False
    for evaluator in found:
        evaluator = dict(evaluator)
        name = str(evaluator.get('type')).rpartition('.')[2]
        metrics = evaluator.get('metric', 'bbox')
        metrics = [metrics] if isinstance(metrics, str) else list(metrics)
        if name in ('CocoMetric', 'UnroundedCocoMetric') and kind in metrics:
            known = known or evaluator.get('prefix') in (None, 'coco')
            if set(metrics) <= {'bbox', 'segm'} and evaluator.get('ann_file'):
                evaluator['type'] = 'mmcr.UnroundedCocoMetric'
        made.append(evaluator)
    if not known:
        kinds = ', '.join(str(each.get('type')) for each in found)
        raise UserError(
            f'Networks are compared by {kind}_mAP, which mmdet.CocoMetric with '
            f'metric={kind!r} says, but test_evaluator is {kinds}. Add such a one.'
        )
    return made


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
