"""A contest: networks trained under the same seeds, each training a step of its own.

The run-off of a reallocation and the ranking study are contests.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

from mmengine.config import Config

from mmcr.errors import UserError
from mmcr.files import undone_if_refused
from mmcr.workflow.recipe import (
    EXACT_RESUME,
    add_hooks,
    kept_in_place,
    text_of,
)
from mmcr.workflow.steps import Step, StepRunner, write_configs

METRIC = 'coco/bbox_mAP'


class Contest:
    """Networks that share initial weights, images and all other chance of a seed.

    Args:
        work_dir: Where every training gets a folder, ``NAME_seed0`` and so on.
        networks: By name, the configs that are trained and tested.
        large: The backbone with all blocks of all networks, from which each takes its
            initial weights (`mmcr.PairedInitHook`); ``None`` where there is none:
            then a seed's networks share their images and draws alone.
        screen: Told how things go (`screen.Screen`), or ``None``.
        gpus: Processes of a training, as of `StepRunner`.
        jobs: Trainings side by side.
        metric: What networks are compared by, from 0 to 1.
        given: Checkpoints, by name of network, that are tested as they are.
    """

    def __init__(
        self,
        work_dir: Path,
        networks: Mapping[str, Config],
        large: Mapping | None = None,
        screen=None,
        gpus: int | None = None,
        jobs: int = 1,
        metric: str = METRIC,
        given: Mapping[str, str] | None = None,
    ) -> None:
        self.given = given or {}
        self.metric = metric
        self.networks = dict(networks)
        self.large = large
        self.runner = StepRunner(work_dir, [], screen, gpus, jobs)

    def step(self, name: str, seed: int) -> Step:
        """The training and test of a network under a seed."""
        title, weights = f'{name}, seed {seed}', self.given.get(name)
        return Step(f'{name}_seed{seed}', title, tested=True, weights=weights)

    def config(self, name: str, seed: int) -> Config:
        """The config of a training."""
        cfg = Config(self.networks[name].to_dict())
        cfg.randomness = dict(cfg.get('randomness') or {}, seed=seed)
        hooks = [EXACT_RESUME]
        if self.large is not None:
            hooks.insert(0, dict(type='mmcr.PairedInitHook', backbone=dict(self.large)))
        add_hooks(cfg, *hooks)
        kept_in_place(cfg)
        return cfg

    def run(self, pairs: Iterable[tuple[str, int]], lock: int) -> None:
        """Trains and tests what is not done yet.

        Args:
            pairs: Names of networks with the seed of each.
            lock: Of the work dir, from `place.alone`.

        Raises:
            UserError: A config was changed by hand, a folder holds a training of other
                settings, or a training fails.
        """
        pairs = list(pairs)
        self.runner.steps = [self.step(*pair) for pair in pairs]
        folder = self.runner.work_dir
        with undone_if_refused(folder):
            if edited := self._write(pairs):
                raise UserError(
                    f'Networks of a contest differ in their architecture alone, but '
                    f'{edited[0]} was changed by hand. Remove it to have it written '
                    f'anew, or train it elsewhere.'
                )
            self.runner.check()
        self.runner.screen.expect(step.name for step in self.runner.steps)
        self.runner.run(lock)

    def _write(self, pairs: Iterable[tuple[str, int]]) -> list[Path]:
        """Writes the configs of trainings; returns those that were edited since."""
        texts = {self.step(*pair).name: text_of(self.config(*pair)) for pair in pairs}
        return write_configs(self.runner.work_dir, texts)

    def metrics(self, name: str, seed: int) -> dict[str, float]:
        """What the test of a training said."""
        return self.runner.tested_metrics(self.step(name, seed))

    def seconds(self, name: str, seed: int) -> float:
        """How long a training and its test took."""
        return self.runner.seconds(self.step(name, seed))

    def ap(self, name: str, seed: int) -> float:
        """The metric in points of 100.

        Raises:
            UserError: The test does not say it.
        """
        metrics = self.metrics(name, seed)
        if self.metric not in metrics:
            raise UserError(
                f'Networks are compared by {self.metric}, as mmdet.CocoMetric says it, '
                f'but the test of this config says {", ".join(sorted(metrics))}. Give '
                f'such a test_evaluator, and another --work-dir.'
            )
        return 100 * metrics[self.metric]

    def checkpoint(self, name: str, seed: int) -> str:
        """What a training has left."""
        return self.runner.checkpoint(self.step(name, seed).name)

    def trained(self, name: str, seed: int) -> tuple[Path, str]:
        """The config of a training that is done, and what it has left."""
        folder = self.runner.folder(self.step(name, seed))
        return folder / 'config.py', self.checkpoint(name, seed)
