"""What people see while steps run: one line each, with how long it will take."""

import re
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from threading import RLock

from mmengine.config import Config
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

TRAINED = re.compile(
    r'(Epoch|Iter)\(train\)\s*(?:\[\s*(\d+)\])?\[\s*(\d+)/\s*(\d+)\].*?\bloss: (\S+)'
)
SEARCHED = re.compile(r'Search \[([\d.]+)/([\d.]+)\]')
EVALUATED = re.compile(
    r'(?:Epoch|Iter)\((val|test)\)\s*(?:\[\s*\d+\])?\[\s*(\d+)/\s*(\d+)\]'
)
# of a network, or of a named path of a supernet
SCORED = re.compile(r'\b(?:coco|archval/(\w+))/bbox_mAP: (-?[\d.]+)')
KEPT = (
    'Best architecture',
    'SyncBN needs',
    'going on',
    'Gate: ',
    'Of the best',
)  # whole lines that people want
EVERY = 30.0  # seconds between two lines, where there is no terminal


@dataclass
class _Followed:
    """A step that runs."""

    step: object
    cfg: Config
    task: int  # of its bar
    begin: float
    shown: float  # when its last line was printed
    part: float = 0.0  # that is done
    loss: str = ''
    ap: str = ''


class Screen:
    """Follows the steps of a work, also some that run side by side.

    On a terminal each step is a line with a bar; elsewhere a line now and then.

    Args:
        names: Of the steps, in order.
        seconds: By name of the step, how long it is expected to take.
        log: Told every line.
        finished: Told every step that has finished; may raise an error.
    """

    def __init__(
        self,
        names: list[str],
        seconds: Mapping[str, float] | None = None,
        log: Callable[[str], None] = lambda line: None,
        finished: Callable = lambda step: None,
    ) -> None:
        self.names = list(names)
        self.expected = dict(seconds or {})
        self.log = log
        self.finished = finished
        self.jobs = 1  # steps side by side
        self.later = 0.0  # seconds of what has no name yet
        self.console = Console(file=sys.stdout, highlight=False)
        self.bars = Progress(
            TextColumn('{task.description}'),
            BarColumn(bar_width=20),
            TaskProgressColumn(),
            TextColumn('{task.fields[text]}'),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self._running: dict[str, _Followed] = {}
        self._taken: dict[str, float] = {}
        self._lock = RLock()

    def __enter__(self) -> 'Screen':
        self.bars.start()
        return self

    def __exit__(self, *error) -> None:
        self.bars.stop()

    def say(self, text: str) -> None:
        """A line that stays."""
        with self._lock:
            self.console.print(text, markup=False, soft_wrap=True)
            self.log(text)

    def expect(self, names: Iterable[str]) -> None:
        """Adds steps that come after those that it knows."""
        self.names += [name for name in names if name not in self.names]

    def done_before(self, step, seconds: float) -> None:
        self._taken[step.name] = seconds
        self.say(f'{self._label(step)}: done already ({duration(seconds)})')

    def start(self, step, cfg: Config) -> None:
        with self._lock:
            now = time.monotonic()
            task = self.bars.add_task(self._label(step), total=1.0, text='starting')
            self._running[step.name] = _Followed(step, cfg, task, now, now)
            if not self.console.is_terminal:
                self._say_of(step, 'starting')

    def read(self, step, line: str) -> None:
        """Learns from a line of the tool's output where the step is."""
        with self._lock:
            self._read(self._running[step.name], line)

    def _read(self, followed: _Followed, line: str) -> None:
        part, text = _state(followed, line)
        for kept in KEPT:
            if kept in line:
                self._say_of(followed.step, line[line.index(kept) :].strip())
        if scores := SCORED.findall(line):
            followed.ap = ', '.join(
                f'{name or "AP"} {100 * float(ap):.2f}' for name, ap in scores
            )
        if part is None:
            return
        followed.part = part
        now = time.monotonic()
        spent = now - followed.begin
        left = spent * (1 - part) / part if part > 0 else None
        words = [*filter(None, [text, followed.ap]), f'step: {duration(left)} left']
        if left is not None:
            words.append(f'all: {duration(self._left(followed, spent, left))} left')
        self.bars.update(followed.task, completed=part, text='  '.join(words))
        if not self.console.is_terminal and now - followed.shown > EVERY:
            followed.shown = now
            self._say_of(followed.step, f'{100 * part:.0f}%  {"  ".join(words)}')

    def finish(self, step, seconds: float) -> None:
        with self._lock:
            self._taken[step.name] = seconds
            followed = self._running.pop(step.name, None)
            done = f'done in {duration(seconds)}'
            if followed is not None:
                self.bars.remove_task(followed.task)
                done = f'{done}; {followed.ap}' if followed.ap else done
            self._say_of(step, done)
        self.finished(step)

    def _say_of(self, step, text: str) -> None:
        self.say(f'{self._label(step)}: {text}')

    def _label(self, step) -> str:
        return f'[{self.names.index(step.name) + 1}/{len(self.names)}] {step.title}'

    def _left(self, this: _Followed, spent: float, left: float) -> float:
        """Seconds until the end of all, by how the steps so far go."""
        taken = {**self._taken, this.step.name: spent + left}
        known = [name for name in taken if self.expected.get(name)]
        planned = sum(self.expected[name] for name in known)
        pace = sum(taken[name] for name in known) / planned if planned else 1.0
        waiting = [n for n in self.names if n not in taken and n not in self._running]
        later = sum(self.expected.get(name, spent + left) for name in waiting)
        return left + pace * (later / self.jobs + self.later)


def _state(followed: _Followed, line: str) -> tuple[float | None, str]:
    """The part of the step that is done, and in words where it is."""
    if found := TRAINED.search(line):
        kind, epoch, done, of, followed.loss = found.groups()
        part, where = int(done) / int(of), f'iteration {done}/{of}'
        if kind == 'Epoch':
            epochs = followed.cfg.train_cfg.get('max_epochs', 1)
            part = (int(epoch) - 1 + part) / epochs
            where = f'epoch {epoch}/{epochs}'
        return 0.97 * part, f'{where}  loss {followed.loss}'
    if found := SEARCHED.search(line):
        done, of = map(float, found.groups())
        return done / of if of else 1.0, f'{done:.0f} of {of:.0f} candidates scored'
    if found := EVALUATED.search(line):
        kind, done, of = found.groups()
        if kind == 'test' and not followed.step.supernet:
            return 0.97 + 0.03 * int(done) / int(of), 'testing'
        return followed.part or None, f'scoring {done}/{of}'
    return None, ''


def duration(seconds: float | None) -> str:
    """Hours, minutes and seconds; a question mark where it is not known."""
    return '?' if seconds is None else str(timedelta(seconds=round(seconds)))
