"""The run-off of a warm reallocation: at equal epochs, from trained weights."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import replace
from io import StringIO
from statistics import fmean

from mmengine.config import Config

from mmcr.engine.extract import is_path, opened, write_path
from mmcr.engine.launch import read_config
from mmcr.errors import UserError
from mmcr.files import file_digest, read_json
from mmcr.models.weights.checkpoint import read_weights
from mmcr.report.comparison import Row
from mmcr.report.front import Front, Point, write_front_page
from mmcr.scoring.smoothing import smoothed
from mmcr.space import Arch, SearchSpace
from mmcr.workflow.contests.candidates import Candidate, complete_trials
from mmcr.workflow.contests.contest import Contest
from mmcr.workflow.contests.grown_finals import GIVEN, GrownFinals
from mmcr.workflow.contests.run_off import BASELINE, RunOff, Schedule
from mmcr.workflow.continuation import (
    continued,
    end_of,
    one_after_the_other,
    started,
    unlike,
)
from mmcr.workflow.steps import STAGE_SEARCH, STAGE_SUPERNET, Step, StepRunner

EQUAL = 0.01  # in parts of the baseline's cost, that a candidate may have more


class WarmFinals(GrownFinals):
    """The run-off of the paths of a supernet that started from the user's detector.

    A candidate is the path that the supernet has of it, trained on for a short time;
    the baseline is the user's detector, trained on for as long as supernet and path
    were together, by the same schedule. Beside them stand the detector as it was given,
    the path as it comes out of the supernet, and the same architecture trained alone by
    the user's recipe, under the first seed.

    Args:
        args: Of `GrownFinals`, and `more`.
        space: That was searched.
        own: The detector's own architecture.
        marked: As `Front.trained`.
    """

    nothing = (
        'A verdict is on a path that costs as much as your detector, or less, but the '
        'search has scored none but its own. Search more of them (generations of the '
        'searcher), or lower costs.'
    )

    def __init__(
        self,
        *args,
        space: SearchSpace,
        own: Arch,
        marked: Mapping[str, Sequence[float]],
        **more,
    ) -> None:
        super().__init__(*args, **more)
        self.space, self.own, self.marked = space, own, marked
        first, second = (
            end_of(continued(self.plain, length, 1.0))
            for length in (self.how.length, self.how.tune)
        )
        self.about = (
            f'Baseline: your detector, trained on for {first} + {second} {self.unit}; '
            f'found: a path of the supernet, which was trained for the first of these, '
            f'trained on for the second. The other rows are one test each; alone: by '
            f'your recipe under the first seed.'
        )
        if self.settings.jobs == 1:  # side by side, times say little
            self.about += (
                ' Trainings: what it took here to have the network, your checkpoint '
                'given, in times of that training alone.'
            )

    def run(
        self, searches: Sequence[Step], schedule: Schedule, screen, lock: int
    ) -> str:
        """As of `Finals`; before it ``result/front.*``, where a front is wanted."""
        text = ''
        if self.settings.front:
            text = f'{self._front()}\n'
            screen.say(text)
        return text + super().run(searches, schedule, screen, lock)

    def _front(self) -> str:
        folder = self.work_dir / STAGE_SEARCH
        trials = complete_trials(folder / 'trials.jsonl', len(self.own))
        expected = smoothed({arch: trial.score for arch, trial in trials.items()})
        front = [
            Arch(each['arch'])
            for each in read_json(folder / 'front.json', 'the front of a search')
        ]
        points = {
            arch: Point(
                arch.to_json(),
                trial.score,
                expected[arch],
                self._cost(arch),
                front.index(arch) if arch in front else None,
            )
            for arch, trial in trials.items()
        }
        unit = getattr(self.space.cost, 'unit', self.settings.budget)
        costs, own = self.settings.front, points.get(self.own)
        found = Front(list(points.values()), costs, unit, own, self.marked)
        return write_front_page(self.work_dir / 'result', found)

    def _cost(self, arch: Arch) -> float:
        """In those of the baseline."""
        return float(self.space.cost_of(arch) / self.space.cost_of(self.own))

    def _competes(self, arch: Arch) -> bool:
        return not self.settings.front or self._cost(arch) <= 1 + EQUAL

    def check_start(self) -> None:
        """As of `Finals`, of the network that is trained alone."""
        if self.of_recipe not in (None, self.checkpoint):  # that has been looked at
            try:
                unlike(self.baseline, self.of_recipe)
            except UserError as error:
                raise UserError(
                    f'{error} It is what the config starts all of its model from '
                    f'(load_from), and so the network that is trained alone.'
                ) from error
        init = self.baseline.start.get('init_cfg')
        if isinstance(init, Mapping) and init.get('checkpoint'):
            read_weights(init['checkpoint'])

    def _networks(self, best: Sequence[Candidate]) -> dict[str, Config]:
        how, networks = self.how, {}
        self._paths = self._extracted(best)
        for each in best:
            alone = self._network(each.decided)
            tuned = continued(alone, how.tune, how.rate)
            networks[each.name] = started(tuned, self._paths[each.name])
            networks[f'{each.name}_extracted'] = copy.deepcopy(alone)
            if self.of_recipe:
                alone = started(alone, self.of_recipe)
            networks[f'{each.name}_alone'] = alone
        both = one_after_the_other(self.plain, how.length, how.tune)
        longer = continued(self.plain, both, how.rate)
        networks[BASELINE] = started(longer, self.checkpoint)
        networks[GIVEN] = copy.deepcopy(self.plain)
        return networks

    def given(self) -> dict[str, str]:
        paths = {f'{name}_extracted': path for name, path in self._paths.items()}
        return {**paths, GIVEN: self.checkpoint}

    def _extracted(self, best: Sequence[Candidate]) -> dict[str, str]:
        """By candidate the checkpoint of its path; those that are there stay."""
        supernet = StepRunner(self.work_dir, [], self.screen).checkpoint(STAGE_SUPERNET)
        digest, folder = file_digest(supernet), (self.work_dir / 'paths').resolve()
        folder.mkdir(exist_ok=True)
        paths = {each.name: folder / f'{each.name}.pth' for each in best}
        archs = {each.name: each.trial.proposal.candidate.arch for each in best}
        missing = [n for n in paths if not is_path(paths[n], archs[n], digest)]
        if missing:
            cfg = read_config(self.work_dir / STAGE_SEARCH / 'config.py')
            cfg.log_level = 'ERROR'
            self.screen.say(f'Taking {", ".join(missing)} out of the supernet ...')
            # what reads data and checkpoints prints
            with redirect_stdout(StringIO()), opened(cfg, supernet) as candidates:
                for name in missing:
                    write_path(paths[name], candidates, archs[name], supernet)
        return {name: str(path) for name, path in paths.items()}

    def _shown_beside(self, winner: str) -> dict[str, str]:
        return {
            **super()._shown_beside(winner),
            'found as extracted': f'{winner}_extracted',
            'found trained alone': f'{winner}_alone',
        }

    def _costed(self, rows: list[Row], run_off: RunOff) -> list[Row]:
        names = BASELINE, run_off.winner
        return [
            replace(row, trainings=self._took(name, run_off))
            for row, name in zip(rows, names)
        ]

    def _warnings(self, rows: Mapping[str, Row]) -> Iterator[str]:
        yield from super()._warnings(rows)
        yield (
            'All seeds share one supernet and the path taken out of it, so that the '
            'interval is that of the training after these.'
        )

    def _published(self, judging: Contest, name: str) -> Config:
        # by the user's recipe, and not as the path was trained for a short time
        alone = name if name == BASELINE else f'{name}_alone'
        return super()._published(judging, alone)

    def _took(self, name: str, run_off: RunOff) -> float | None:
        """What led from the given checkpoint to a network, in trainings alone.

        ``None`` where those ran side by side, on a part of the cores.
        """
        if self.settings.jobs > 1:
            return None
        judging, seed = run_off.judging, run_off.seeds[0]
        seconds = 0.0
        if name not in (GIVEN, f'{run_off.winner}_extracted'):
            seeds = [seed] if name.endswith('_alone') else run_off.seeds
            seconds = fmean(judging.seconds(name, each) for each in seeds)
        if name not in (GIVEN, BASELINE):
            steps = StepRunner(self.work_dir, [], self.screen)
            seconds += sum(map(steps.seconds, (STAGE_SUPERNET, STAGE_SEARCH)))
        return seconds / judging.seconds(f'{run_off.winner}_alone', seed)
