"""What people see while steps run: one line each, with how long it will take."""

import re
import sys
import time
from collections.abc import Callable, Mapping
from datetime import timedelta

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
KEPT = ('Best architecture', 'SyncBN needs', 'going on')  # whole lines that people want
EVERY = 30.0  # seconds between two lines, where there is no terminal


class Screen:
    """Follows the steps of a work.

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
        self.names = names
        self.expected = dict(seconds or {})
        self.log = log
        self.finished = finished
        self.console = Console(file=sys.stdout, highlight=False)
        self.bars = Progress(
            TextColumn('{task.description}'),
            BarColumn(bar_width=20),
            TaskProgressColumn(),
            TextColumn('{task.fields[text]}'),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self._task = None
        self._taken: dict[str, float] = {}

    def __enter__(self) -> 'Screen':
        self.bars.start()
        return self

    def __exit__(self, *error) -> None:
        self.bars.stop()

    def say(self, text: str) -> None:
        """A line that stays."""
        self.console.print(text, markup=False, soft_wrap=True)
        self.log(text)

    def done_before(self, step, seconds: float) -> None:
        self._taken[step.name] = seconds
        self.say(f'{self._label(step)}: done already ({duration(seconds)})')

    def start(self, step, cfg: Config) -> None:
        self.step, self.cfg = step, cfg
        self._begin = self._shown = time.monotonic()
        self._part, self._loss, self._ap = 0.0, '', ''
        self._task = self.bars.add_task(self._label(step), total=1.0, text='starting')
        if not self.console.is_terminal:
            self._say_of_step('starting')

    def read(self, line: str) -> None:
        """Learns from a line of the tool's output where the step is."""
        part, text = self._state(line)
        for kept in KEPT:
            if kept in line:
                self._say_of_step(line[line.index(kept) :].strip())
        if scores := SCORED.findall(line):
            self._ap = ', '.join(
                f'{name or "AP"} {100 * float(ap):.2f}' for name, ap in scores
            )
        if part is None:
            return
        self._part = part
        spent = time.monotonic() - self._begin
        left = spent * (1 - part) / part if part > 0 else None
        words = [*filter(None, [text, self._ap]), f'step: {duration(left)} left']
        if left is not None:
            words.append(f'all: {duration(left + self._after(spent + left))} left')
        self.bars.update(self._task, completed=part, text='  '.join(words))
        now = time.monotonic()
        if not self.console.is_terminal and now - self._shown > EVERY:
            self._shown = now
            self._say_of_step(f'{100 * part:.0f}%  {"  ".join(words)}')

    def finish(self, step, seconds: float) -> None:
        self._taken[step.name] = seconds
        if self._task is not None:
            self.bars.remove_task(self._task)
        done = f'done in {duration(seconds)}'
        self._say_of_step(f'{done}; {self._ap}' if self._ap else done)
        self.finished(step)

    def _say_of_step(self, text: str) -> None:
        self.say(f'{self._label(self.step)}: {text}')

    def _label(self, step) -> str:
        return f'[{self.names.index(step.name) + 1}/{len(self.names)}] {step.title}'

    def _after(self, this: float) -> float:
        """Seconds of the steps that come after this one, by how this one goes."""
        taken = {**self._taken, self.step.name: this}
        known = [name for name in taken if self.expected.get(name)]
        planned = sum(self.expected[name] for name in known)
        pace = sum(taken[name] for name in known) / planned if planned else 1.0
        later = self.names[self.names.index(self.step.name) + 1 :]
        return pace * sum(self.expected.get(name, this) for name in later)

    def _state(self, line: str) -> tuple[float | None, str]:
        """The part of the step that is done, and in words where it is."""
        if found := TRAINED.search(line):
            kind, epoch, done, of, self._loss = found.groups()
            part, where = int(done) / int(of), f'iteration {done}/{of}'
            if kind == 'Epoch':
                epochs = self.cfg.train_cfg.get('max_epochs', 1)
                part = (int(epoch) - 1 + part) / epochs
                where = f'epoch {epoch}/{epochs}'
            return 0.97 * part, f'{where}  loss {self._loss}'
        if found := SEARCHED.search(line):
            done, of = map(float, found.groups())
            return done / of if of else 1.0, f'{done:.0f} of {of:.0f} candidates scored'
        if found := EVALUATED.search(line):
            kind, done, of = found.groups()
            if kind == 'test' and not self.step.supernet:
                return 0.97 + 0.03 * int(done) / int(of), 'testing'
            return self._part or None, f'scoring {done}/{of}'
        return None, ''


def duration(seconds: float | None) -> str:
    """Hours, minutes and seconds; a question mark where it is not known."""
    return '?' if seconds is None else str(timedelta(seconds=round(seconds)))
