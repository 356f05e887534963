"""The run-off of networks that start from the user's trained detector."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from mmengine.config import Config

from mmcr.report.comparison import Row
from mmcr.workflow.contests.candidates import Candidate
from mmcr.workflow.contests.contest import Contest
from mmcr.workflow.contests.finals import Finals
from mmcr.workflow.contests.run_off import BASELINE, RunOff
from mmcr.workflow.continuation import (
    Continuation,
    absolute,
    continued,
    end_of,
    started,
)

GIVEN = f'{BASELINE}_given'


class GrownFinals(Finals):
    """The run-off where all networks start from the user's trained detector.

    Each takes its blocks from the checkpoint, new ones are the identity at first, and
    is trained on, the baseline for as long, by the same schedule, and as free to learn:
    stages and norms that the user freezes are not frozen in what has new blocks. Beside
    them stands the detector as it was given.

    Args:
        args: Of `Finals`.
        checkpoint: Of the user's detector.
        is_whole: Whether it has all of the detector, so that it can be tested.
    """

    def __init__(self, *args, checkpoint: str, is_whole: bool) -> None:
        super().__init__(*args)
        self.checkpoint, self.is_whole = checkpoint, is_whole
        self.of_recipe = self.baseline.checkpoint and absolute(self.baseline.checkpoint)
        self.how = Continuation.of(self.settings.options)
        self.unit = 'epochs' if self.plain.train_cfg.get('max_epochs') else 'iterations'
        end = end_of(continued(self.plain, self.how.length, self.how.rate))
        self.about = (
            f'Baseline and found: from your detector block by block, trained on for '
            f'{end} {self.unit}.'
        )

    def large(self) -> None:
        """Weights are given; what a checkpoint lacks is each network's own."""
        return None

    def check_start(self) -> None:
        """Nothing is left to be read: the checkpoint has been."""

    def _networks(self, best: Sequence[Candidate]) -> dict[str, Config]:
        networks = {each.name: self._network(each.decided) for each in best}
        networks[BASELINE] = self._network({})  # frozen no more than these
        how = self.how.length, self.how.rate
        grown = {
            name: started(continued(cfg, *how), self.checkpoint)
            for name, cfg in networks.items()
        }
        return {**grown, GIVEN: copy.deepcopy(self.plain)}

    def given(self) -> dict[str, str]:
        return {GIVEN: self.checkpoint}

    def _shown_beside(self, winner: str) -> dict[str, str]:
        """By title the networks that are tested under one seed."""
        return {'baseline as given': GIVEN} if self.is_whole else {}

    def _beside(self, run_off: RunOff, lock: int) -> list[Row]:
        judging, seed = run_off.judging, run_off.seeds[0]
        shown = self._shown_beside(run_off.winner)
        judging.run([(name, seed) for name in shown.values()], lock)
        return [
            replace(
                self._row(title, judging.networks[name], judging.metrics(name, seed)),
                trainings=self._took(name, run_off),
            )
            for title, name in shown.items()
        ]

    def _took(self, name: str, run_off: RunOff) -> float | None:
        """In trainings alone; ``None``: that is not told."""
        return None

    def _warnings(self, rows: Mapping[str, Row]) -> Iterator[str]:
        yield from super()._warnings(rows)
        given, trained = (
            rows[name].ap if name in rows else None
            for name in ('baseline as given', 'baseline')
        )
        if None not in (given, trained) and given > max(trained, rows['found'].ap):
            yield (
                'Your detector as it was given has a higher AP than either: training '
                'on has cost it some. Keep it as it is.'
            )

    def _published(self, judging: Contest, name: str) -> Config:
        if name != BASELINE:
            return judging.networks[name]
        cfg = copy.deepcopy(judging.networks[GIVEN])
        cfg.load_from = self.of_recipe
        return cfg
