"""Times the parts of a search from outside: the product holds no timers.

`PartTimers.watch` wraps a callable that is an attribute of a module or a class
for as long as the timers are in use. Inside each other, each part gets its own
time only, except that everything inside 'calibration' counts as calibration.
"""

import functools
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import GeneratorType

import torch
from mmengine.evaluator import Evaluator
from naive_search import NaiveSearch
from torch import nn
from torch.utils.data import DataLoader
from torch.utils.data.dataloader import _BaseDataLoaderIter

import mmcr.scoring.evaluator
from mmcr.scoring.bn_calibrator import BNCalibrator

CALIBRATION = 'calibration'


class PartTimers:
    """Seconds by part.

    Args:
        cuda: Wait for the device at every border between parts. That costs time:
            total times are to be taken without these timers then.
    """

    def __init__(self, cuda: bool = False) -> None:
        self.cuda = cuda
        self.seconds: dict[str, float] = {}
        self._open: list[str] = []
        self._since = 0.0
        self._replaced: list[tuple] = []

    def watch(self, owner: object, name: str, part: str) -> None:
        """Counts the time inside ``owner.name`` as `part`, until `close`."""
        original = getattr(owner, name)

        @functools.wraps(original)
        def timed(*args, **kwargs):
            with self.part(part):
                result = original(*args, **kwargs)
            return self._watched_generator(result, part)

        self._replaced.append((owner, name, vars(owner).get(name)))
        setattr(owner, name, timed)

    def close(self) -> None:
        """Takes all the wrappers off."""
        while self._replaced:
            owner, name, original = self._replaced.pop()
            if original is None:
                delattr(owner, name)
            else:
                setattr(owner, name, original)

    def _watched_generator(self, result: object, part: str) -> object:
        """A generator works when it is asked, not when it is called."""
        if not isinstance(result, GeneratorType):
            return result

        def items():
            while True:
                with self.part(part):
                    try:
                        item = next(result)
                    except StopIteration:
                        return
                yield item

        return items()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        if CALIBRATION in self._open:
            name = CALIBRATION
        self._border()
        self._open.append(name)
        try:
            yield
        finally:
            self._border()
            self._open.pop()

    def _border(self) -> None:
        if self.cuda:
            torch.cuda.synchronize()
        now = time.perf_counter()
        if self._open:
            part = self._open[-1]
            self.seconds[part] = self.seconds.get(part, 0.0) + now - self._since
        self._since = now


@contextmanager
def watch_parts(timers: PartTimers, model: nn.Module) -> Iterator[None]:
    """Times the parts of a search with `model`, naive or ours.

    Loading is what the main process waits for, with preprocessing.
    """
    timers.watch(DataLoader, '__iter__', 'loading')  # it may start processes
    timers.watch(_BaseDataLoaderIter, '__next__', 'loading')
    timers.watch(model.data_preprocessor, 'forward', 'loading')
    timers.watch(BNCalibrator, 'calibrate', CALIBRATION)
    timers.watch(NaiveSearch, 'calibrate', CALIBRATION)
    timers.watch(model.backbone, 'forward', 'backbone')
    timers.watch(mmcr.scoring.evaluator, 'run_paths', 'backbone')
    for name, module in model.named_children():
        if name not in ('backbone', 'data_preprocessor'):
            method = 'predict' if hasattr(module, 'predict') else 'forward'
            timers.watch(module, method, 'neck and heads')
    timers.watch(Evaluator, 'process', 'evaluation')
    timers.watch(Evaluator, 'evaluate', 'evaluation')
    timers.watch(mmcr.scoring.evaluator, 'compute', 'evaluation')
    try:
        yield
    finally:
        timers.close()
