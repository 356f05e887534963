"""Steps of a longer work: commands of ours, each with a folder, done once.

A step is one of the commands that a user could type, in a process and a folder of its
own, so that a stopped work goes on where it was.
"""

import hashlib
import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from mmengine.config import Config

from mmcr.data.checks import annotation_files
from mmcr.engine.launch import read_config
from mmcr.errors import UserError
from mmcr.files import file_digest, write_json
from mmcr.workflow.processes import Processes

ROOT = Path(__file__).parents[2]
SEARCHED = (
    *('stage_supernet', 'stage_search', 'op_supernet', 'op_search'),  # of CR-NAS
    *('supernet', 'search'),  # of DetNAS
)


@dataclass(frozen=True)
class Step:
    """One command of the pipeline.

    Attributes:
        name: Also of its folder in the work dir.
        config: What ``CR_STEP`` in the user's config stands for.
        arch: What ``CR_ARCH`` stands for: a fragment of ours, or the step whose
            ``best_arch.py`` it is.
        supernet: The step whose checkpoint is searched; ``None`` for training.
        tested: Whether the trained network is tested, too.
        seed: Of its training; ``None``: the config's, or 0.
        options: More ``--cfg-options``.
    """

    name: str
    config: str
    arch: str | None = None
    supernet: str | None = None
    tested: bool = False
    seed: int | None = None
    options: tuple[str, ...] = ()

    @property
    def after(self) -> list[str]:
        """The steps whose results this one needs."""
        return [name for name in (self.arch, self.supernet) if name in SEARCHED]


class StepRunner:
    """Runs steps for a user's config.

    Args:
        config: A config whose ``_base_`` is
            ``'.../configs/{{$CR_STEP:crnas/supernet_r18}}.py'``.
        work_dir: Where every step gets a folder.
        steps: Every step after those it needs.
        jobs: How many steps may run at a time where none needs the other.
        say: Where to tell how things go.
        fast: Whether to search by halving and racing.

    Raises:
        UserError: `jobs` is less than 1, a step failed, or the work dir is in use or
            holds steps of another config, other data or another supernet.
    """

    def __init__(
        self,
        config: str,
        work_dir: str,
        steps: list[Step],
        jobs: int = 1,
        say: Callable[[str], None] = print,
        fast: bool = False,
    ) -> None:
        if jobs < 1:
            raise UserError(f'jobs must be at least 1, but got {jobs}.')
        self.config = Path(config).resolve()
        self.work_dir = Path(work_dir).resolve()
        self.steps = steps
        self.jobs = jobs
        self.say = say
        self.fast = fast
        self.processes = Processes(self.work_dir)
        self._environment = threading.Lock()

    def run_steps(self) -> None:
        """Runs what is not done yet."""
        start = time.monotonic()
        futures: dict[str, Future] = {}
        with self.processes.alone(), ThreadPoolExecutor(self.jobs) as pool:
            for step in self.steps:  # a worker only ever waits for an earlier step
                futures[step.name] = pool.submit(self._run, step, futures)
            try:
                for future in as_completed(futures.values()):
                    future.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                self.processes.stop()
                raise
        self.say(f'All {len(self.steps)} steps done, {_duration(start)} in this run.')

    def _run(self, step: Step, futures: dict[str, Future]) -> None:
        for name in step.after:
            futures[name].result()
        folder = self.work_dir / step.name
        state_file = folder / 'step.json'
        fingerprint = self._fingerprint(step)
        state = json.loads(state_file.read_text()) if state_file.exists() else {}
        if state and state['config'] != fingerprint:
            raise UserError(
                f'{folder} must hold a run of this config, but it was started with '
                f'another one, with other data or another supernet, or by a version '
                f'of mmcr that ran this step in another way. Name another '
                f'--work-dir, or remove the folder to run the step anew.'
            )
        if not state and (
            (folder / 'last_checkpoint').exists() or (folder / 'trials.jsonl').exists()
        ):
            raise UserError(
                f'{folder} must hold a step of this pipeline, but something else has '
                f'trained or searched there. Name another --work-dir, or move it away.'
            )
        if state.get('done'):
            return self._say(step, f'done already ({state["seconds"]} s)')

        folder.mkdir(parents=True, exist_ok=True)
        write_json(state_file, dict(config=fingerprint, done=False))
        start = time.monotonic()
        if step.supernet:
            fast = ['--fast'] if self.fast else []
            self._call(step, 'search.py', self._checkpoint(step.supernet), *fast)
        else:
            self._call(step, 'train.py', '--resume')
        if step.tested:
            self._call(
                step, 'test.py', self._checkpoint(step.name), work_dir=folder / 'test'
            )
        seconds = round(time.monotonic() - start)
        write_json(state_file, dict(config=fingerprint, done=True, seconds=seconds))
        self._say(step, f'done in {_duration(start)}')

    def _fingerprint(self, step: Step) -> str:
        """Of what the step's result depends on: config, options, data, supernet."""
        cfg = self.resolved(step)
        files = [name for name in annotation_files(cfg) if os.path.isfile(name)]
        if step.supernet:
            files.append(self._checkpoint(step.supernet))
        text = '\n'.join([cfg.pretty_text, *map(file_digest, files)])
        if step.seed is not None:
            text += f'seed {step.seed}'
        text += ' '.join(step.options)
        if step.supernet and self.fast:
            text += 'fast'
        return hashlib.sha256(text.encode()).hexdigest()

    def _call(
        self, step: Step, tool: str, *arguments: str, work_dir: Path | None = None
    ) -> None:
        """Runs a tool, its output in ``console.log``, where it is on the screen."""
        command = [
            sys.executable,
            str(ROOT / 'tools' / tool),
            str(self.config),
            *arguments,
            '--work-dir',
            str(work_dir or self.work_dir / step.name),
        ]
        seed = step.seed
        if (
            seed is None
            and self.resolved(step).get('randomness', {}).get('seed') is None
        ):
            seed = 0  # the networks are compared: none may have a luckier start
        options = list(step.options)
        if seed is not None:
            options.append(f'randomness.seed={seed}')
        if options:
            command += ['--cfg-options', *options]
        settings = self._settings(step)
        self._say(
            step,
            ' '.join(f'{k}={v}' for k, v in settings.items())
            + f' tools/{tool} {" ".join(command[2:])}',
        )
        threads = str(max(1, (os.cpu_count() or 1) // self.jobs))
        with self._environment:  # another step's may be there
            environment = {'OMP_NUM_THREADS': threads, **os.environ, **settings}
        path = [str(ROOT), environment.get('PYTHONPATH')]
        environment['PYTHONPATH'] = os.pathsep.join(filter(None, path))
        log = self.work_dir / step.name / 'console.log'
        self.processes.run(
            command, environment, log, lambda text: self._say(step, text)
        )

    def _settings(self, step: Step) -> dict[str, str]:
        settings = dict(CR_STEP=step.config)
        if step.arch in SEARCHED:
            settings['CR_ARCH'] = str(self.work_dir / step.arch / 'best_arch.py')
        elif step.arch:
            settings['CR_ARCH'] = step.arch
        return settings

    def resolved(self, step: Step) -> Config:
        """The user's config as the step reads it."""
        with self._environment:  # mmengine substitutes from os.environ
            before = dict(os.environ)
            os.environ.update(self._settings(step))
            logging.disable(logging.INFO)  # it announces every substitution
            try:
                return read_config(self.config)
            finally:
                logging.disable(logging.NOTSET)
                os.environ.clear()
                os.environ.update(before)

    def _checkpoint(self, name: str) -> str:
        return (self.work_dir / name / 'last_checkpoint').read_text().strip()

    def _say(self, step: Step, text: str) -> None:
        number = self.steps.index(step) + 1
        self.say(f'[{number}/{len(self.steps)} {step.name}] {text}')

    def tested_metrics(self, name: str) -> dict[str, float]:
        """What mmengine's LoggerHook wrote after the last test of a step's network."""
        written = sorted((self.work_dir / name / 'test').glob('*/*.json'))
        return json.loads(written[-1].read_text())


def _duration(start: float) -> str:
    return str(timedelta(seconds=round(time.monotonic() - start)))
