"""Steps of a longer work: a folder, a config and a tool each, done once.

A step is a command that a user could type, in a process of its own: a stopped work
goes on where it was, and a step that died takes no other with it.
"""

import json
import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from mmengine.config import Config

from mmcr.checks import is_number
from mmcr.cli import MIM
from mmcr.engine.launch import read_config
from mmcr.errors import UserError
from mmcr.files import file_digest, read_state, write_bytes, write_json
from mmcr.models.weights.checkpoint import (
    CheckpointError,
    last_checkpoint,
    read_training,
)
from mmcr.scoring.fingerprint import with_contents

ROOT = Path(__file__).parents[2]
TOOLS = MIM / 'tools'
#: Of a config, what can change the result of a step.
MATTERS = (
    *('model', 'data_preprocessor', 'load_from', 'sync_bn', 'randomness'),
    *('train_dataloader', 'train_cfg', 'optim_wrapper', 'param_scheduler'),
    *('val_dataloader', 'val_cfg', 'val_evaluator', 'auto_scale_lr', 'custom_hooks'),
    *('test_dataloader', 'test_cfg', 'test_evaluator'),
)
#: What cannot, wherever it stands in those.
DOES_NOT_MATTER = {
    *('num_workers', 'persistent_workers', 'pin_memory', 'prefetch_factor'),
    *('backend', 'group_size'),
}

#: Names of steps and of their folders, CR-NAS's and DetNAS's.
STAGE_SUPERNET, STAGE_SEARCH = '01_stage_supernet', '02_stage_search'
OP_SUPERNET, OP_SEARCH = '03_op_supernet', '04_op_search'
SUPERNET, SEARCH = '01_supernet', '02_search'

GRACE = 30.0  # seconds in which a step that is stopped may end by itself


@dataclass(frozen=True)
class Step:
    """One command of a work.

    Attributes:
        name: Of its folder in the work dir, which holds its ``config.py``.
        title: For people.
        supernet: The step whose checkpoint is searched; ``None`` for a training.
        tested: Whether the trained network is tested, too.
        fast: Whether a search takes the quicker form of its method.
        scale: Of the images that are searched on, in scales of the user's config.
        weights: A checkpoint to be tested as it is, in the place of a training.
    """

    name: str
    title: str
    supernet: str | None = None
    tested: bool = False
    fast: bool = False
    weights: str | None = None
    scale: float = 1.0


class StepRunner:
    """Runs steps one after the other, each once.

    Args:
        work_dir: Has, or gets, a folder for each step.
        steps: In the order in which they are run.
        screen: Told how things go (`screen.Screen`).
        gpus: Processes of a step, started by torchrun; ``None``: one, without it.
        jobs: Steps side by side, of those that wait for no other; more than one on a
            CPU, each with its part of the cores.
    """

    def __init__(
        self,
        work_dir: Path,
        steps: Sequence[Step],
        screen,
        gpus: int | None = None,
        jobs: int = 1,
    ) -> None:
        self.work_dir = Path(work_dir)
        self.steps = list(steps)
        self.screen = screen
        self.gpus = gpus
        self.jobs = jobs
        self._processes: set[subprocess.Popen] = set()
        self._one_at_a_time = Lock()  # reads configs, starts processes

    def run(self, lock: int) -> None:
        """Runs what is not done yet.

        Args:
            lock: Of the work dir, from `alone`.

        Raises:
            UserError: A step fails, or its folder holds one of other settings.
        """
        self.screen.jobs = self.jobs
        with self.screen, ThreadPoolExecutor(self.jobs) as pool:
            try:
                for done in as_completed(
                    [pool.submit(self._run, step, lock) for step in self.steps]
                ):
                    done.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                for process in list(self._processes):
                    end(process)
                raise

    def _run(self, step: Step, lock: int) -> None:
        state_file = self.folder(step) / 'step.json'
        with self._one_at_a_time:
            state = self._state(step)
            conditions = self.conditions(step)
            spent = 0
            if self._has_something_to_lose(step):
                self._check_same(step, state.get('conditions'), conditions)
                spent = state['spent'] if is_number(state.get('spent')) else 0
            if state.get('done'):
                return self.screen.done_before(step, state['seconds'])
            known = dict(conditions=conditions, done=False)
            write_json(state_file, dict(known, spent=spent))
            self.screen.start(step, self.config(step))
        start = time.monotonic() - spent
        try:
            self._work(step, lock)
        except BaseException:
            spent = round(time.monotonic() - start)
            with suppress(OSError):  # the error that is under way matters more
                write_json(state_file, dict(known, spent=spent))
            raise
        seconds = round(time.monotonic() - start)
        write_json(state_file, dict(conditions=conditions, done=True, seconds=seconds))
        self.screen.finish(step, seconds)

    def _work(self, step: Step, lock: int) -> None:
        if step.supernet:
            fast = ['--fast'] if step.fast else []
            checkpoint = self.checkpoint(step.supernet)
            self._call(step, lock, 'search.py', checkpoint, *fast)
        elif step.weights is None:
            self._call(step, lock, 'train.py', '--resume')
        if step.tested:
            folder = self.folder(step) / 'test'
            checkpoint = step.weights or self.checkpoint(step.name)
            self._call(step, lock, 'test.py', checkpoint, '--work-dir', str(folder))

    def check(self) -> None:
        """Checks what is done already, before anything is written.

        Raises:
            UserError: A folder holds a step of other settings, or a damaged record.
        """
        for step in self.steps:
            state = self._state(step)
            if self._has_something_to_lose(step):
                self._check_same(step, state.get('conditions'), self.conditions(step))
            if not state.get('done'):  # the configs of others may wait for this one
                return

    def _state(self, step: Step) -> dict:
        path = self.folder(step) / 'step.json'
        state = read_state(path)
        known = isinstance(state.get('conditions', {}), dict)
        if not known or (state.get('done') and not is_number(state.get('seconds'))):
            raise UserError(
                f'{path} must hold what a run wrote on its step, but does not. Put '
                f'back the file that was there, or move the folder away to run the '
                f'step anew.'
            )
        return state

    def folder(self, step: Step | str) -> Path:
        return self.work_dir / (step if isinstance(step, str) else step.name)

    def config(self, step: Step) -> Config:
        """The step's config, resolved."""
        return read_config(self.folder(step) / 'config.py')

    def checkpoint(self, step: str) -> str:
        """The last checkpoint of a training that is done, in the folder of its step.

        What ``last_checkpoint`` names there, since a work dir that was moved or copied
        is one of its own; or the one that has all iterations.
        """
        folder = self.folder(step)
        pointer = folder / 'last_checkpoint'
        text = pointer.read_text(errors='replace') if pointer.is_file() else ''
        named = folder / Path(text.strip()).name
        if os.path.isfile(named):  # whatever bytes its name has
            return str(named)
        try:
            path, note = last_checkpoint(folder)
        except CheckpointError:
            path, note = None, ''
        if path is None or not self._is_trained(step, path):
            lacks = f'there is no {named.name}' if text else 'it lacks that file'
            raise UserError(
                f'{folder} must hold the checkpoint of the whole training and the file '
                f'last_checkpoint that names it, but {lacks}. Let '
                f'default_hooks.checkpoint of the config save one; put it back, or '
                f'remove the folder to train again.'
            )
        self.screen.say(note)
        write_bytes(pointer, path.name.encode())
        return str(path)

    def _is_trained(self, step: str, path: Path) -> bool:
        loop = read_config(self.folder(step) / 'config.py').train_cfg
        state = read_training(path)
        done, epochs = state['meta']['iter'], loop.get('max_epochs')
        epoch = state['meta'].get('epoch', 0)
        if epochs is None:
            return done >= loop.max_iters
        exact = state.get('exact_resume', {})
        length = exact.get('length')
        # saved at the last iteration of an epoch, which is not counted yet
        whole = length and exact.get('done', done - epoch * length) == length
        return epoch + bool(whole) >= epochs

    def conditions(self, step: Step) -> dict[str, object]:
        """What the step's result depends on, by a name for messages."""
        conditions = dict(_flat(with_contents(self.config(step).to_dict())))
        if step.supernet:
            checkpoint = file_digest(self.checkpoint(step.supernet))
            conditions[f'checkpoint of {step.supernet}'] = checkpoint
            conditions['--fast'] = step.fast
        else:  # of them all is a batch
            conditions['--gpus'] = self.gpus or 1
        init = self.config(step).get('model', {}).get('init_cfg')
        start = init.get('checkpoint') if isinstance(init, Mapping) else None
        # the limit of a search at another scale comes from the first one's table
        table = step.scale != 1 and conditions.get('test_cfg.budget.table')
        for name, path in (
            ('model.init_cfg.checkpoint', start),
            ('checkpoint that is tested', step.weights),
            ('latency table of the scale', table),
        ):  # by its contents, so that a work dir may be moved
            if path and os.path.isfile(path):
                conditions[name] = file_digest(path)
        return json.loads(json.dumps(conditions))

    def _has_something_to_lose(self, step: Step) -> bool:
        folder = self.folder(step)
        return any(
            (folder / name).exists()
            for name in ('last_checkpoint', 'trials.jsonl', 'test')
        )

    def _check_same(self, step: Step, before: dict | None, now: dict) -> None:
        folder = self.folder(step)
        if before is None:
            raise UserError(
                f'{folder} must hold a step of this work, but something else has '
                f'trained or searched there. Name another --work-dir, or move it away.'
            )
        changed = [
            f'{name} ({_short(before.get(name))} then, {_short(now.get(name))} now)'
            for name in {**before, **now}
            if before.get(name) != now.get(name)
        ]
        if changed:
            more = f' and {len(changed) - 4} more' if len(changed) > 4 else ''
            raise UserError(
                f'{folder} holds results of other settings: {"; ".join(changed[:4])}'
                f'{more}. Go back to those, name another --work-dir, or remove the '
                f'folder to run the step anew.'
            )

    def _call(self, step: Step, lock: int, tool: str, *arguments: str) -> None:
        """Runs a tool, its output in ``console.log``, where it is on the screen."""
        folder = self.folder(step)
        command = [str(TOOLS / tool), str(folder / 'config.py'), *arguments]
        command += ['--check-images', 'none']  # its tool has looked at them
        if '--work-dir' not in arguments:
            command += ['--work-dir', str(folder)]
        if self.gpus:
            torchrun = ['-m', 'torch.distributed.run', '--standalone']
            command = [*torchrun, f'--nproc_per_node={self.gpus}', *command]
            command += ['--launcher', 'pytorch']
        log = folder / 'console.log'
        last: deque[str] = deque(maxlen=20)
        with (
            log.open('a', buffering=1) as file,
            subprocess.Popen(
                [sys.executable, *command],
                env=tool_environment(self.jobs),
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                errors='replace',
                pass_fds=[lock],  # held for as long as it runs
            ) as process,
        ):
            self._processes.add(process)
            file.write(f'$ {" ".join(["python", *command])}\n')
            try:
                for line in process.stdout:
                    file.write(line)
                    last.append(line.strip())
                    self.screen.read(step, line)
            except BaseException:
                end(process)
                raise
            finally:
                self._processes.discard(process)
        if process.returncode:
            messages = [line for line in last if line.startswith('error:')]
            reason = (messages or list(last) or ['it printed nothing'])[-1]
            raise UserError(
                f'{step.name} failed: {reason.removeprefix("error: ")} (log: {log})'
            )

    def seconds(self, step: Step) -> float:
        """How long a step took that is done."""
        return self._state(step)['seconds']

    def tested_metrics(self, step: Step) -> dict[str, float]:
        """What mmengine's LoggerHook wrote after the last test of a step's network."""
        written = sorted((self.folder(step) / 'test').glob('*/*.json'))
        if not written:
            raise UserError(
                f'{self.folder(step)} must hold what its test said, but its folder '
                f'test has none. Remove {self.folder(step)} to run the step anew.'
            )
        return read_state(written[-1])


def write_configs(work_dir: Path, texts: Mapping[str, str]) -> list[Path]:
    """Writes the config of each step into its folder.

    Args:
        work_dir: Of the steps.
        texts: By name of the step.

    Returns:
        The configs that somebody has changed since: these stay as they are.
    """
    written = work_dir / 'configs.json'
    known = read_state(written)
    edited = []
    for step, text in texts.items():
        path = work_dir / step / 'config.py'
        path.parent.mkdir(parents=True, exist_ok=True)
        there = path.read_text() if path.exists() else None
        if there not in (None, text, known.get(step)):
            edited.append(path)
            continue
        if there != text:
            write_bytes(path, text.encode())
        known[step] = text
    if known != read_state(written):
        write_json(written, known)
    return edited


def end(process: subprocess.Popen) -> None:
    """Ends a process, whose part of the work dir is then free for the next one."""
    process.terminate()
    try:
        process.wait(GRACE)
    except subprocess.TimeoutExpired:
        process.kill()


def tool_environment(jobs: int = 1) -> dict[str, str]:
    """Of processes that import this mmcr; the cores are shared out to `jobs`."""
    path = [str(ROOT), os.environ.get('PYTHONPATH')]
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(filter(None, path))}
    if jobs > 1:
        environment['OMP_NUM_THREADS'] = str(max(1, (os.cpu_count() or 1) // jobs))
    return environment


def _flat(value: object, name: str = '') -> Iterator[tuple[str, object]]:
    """The leaves of a config that matter, by their path."""
    if isinstance(value, Mapping):
        for key, entry in value.items():
            if key in DOES_NOT_MATTER or (not name and key not in MATTERS):
                continue
            yield from _flat(entry, f'{name}.{key}' if name else key)
    elif isinstance(value, list | tuple) and any(
        isinstance(entry, Mapping) for entry in value
    ):
        for i, entry in enumerate(value):
            yield from _flat(entry, f'{name}[{i}]')
    else:
        yield name, value if isinstance(value, int | float | None) else str(value)


def _short(value: object) -> str:
    text = 'none' if value is None else str(value)
    return text if len(text) <= 40 else f'{text[:37]}...'
