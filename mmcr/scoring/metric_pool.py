"""Metric values of many candidates, computed beside the work that makes them."""

import contextlib
import functools
import logging
import multiprocessing
import os
import pickle
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import cv2
import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger
from torch import Tensor

from mmcr.errors import UserError

#: What a scoring process sees: no GPU, and one thread per library.
ENVIRONMENT = dict(
    CUDA_VISIBLE_DEVICES='',
    OMP_NUM_THREADS='1',
    OPENBLAS_NUM_THREADS='1',
    MKL_NUM_THREADS='1',
)


class MetricPool:
    """Computes metrics in processes of its own, which start at once.

    Each process has one thread and sees no GPU; it ends with this one, also
    when this one is killed. A script that makes a pool with workers needs
    ``if __name__ == '__main__':``, as for every process that Python spawns.

    Args:
        metrics: mmengine metrics, their `dataset_meta` set. Every process gets
            a copy of them as they are now, without their results.
        workers: Number of processes; 0 computes in this one.

    Raises:
        UserError: `workers` is negative, or a metric cannot be sent.
    """

    def __init__(self, metrics: Sequence[BaseMetric], workers: int) -> None:
        if not isinstance(workers, int) or workers < 0:
            raise UserError(
                f'The number of scoring processes must be 0 or more, but got '
                f'{workers!r}.'
            )
        self.metrics = metrics
        self.workers = workers
        self._pool = None
        if workers:
            pickled = _pickled_metrics(metrics)
            context = multiprocessing.get_context('spawn')
            # as an argument they would hold up this process until the other has
            # imported everything, since they are more than a pipe takes
            self._metrics = context.Queue()
            # what no process has taken must not hold up the end of this one
            self._metrics.cancel_join_thread()
            for _ in range(workers):
                self._metrics.put(pickled)
            self._pool = ProcessPoolExecutor(
                workers,
                context,
                initializer=_start,
                initargs=(self._metrics, list(sys.path)),
            )
            with _environment(ENVIRONMENT), contextlib.suppress(BrokenProcessPool):
                for _ in range(workers):  # so that all of them start now
                    self._pool.submit(_nothing)

    def __enter__(self) -> 'MetricPool':
        return self

    def __exit__(self, *error) -> None:
        self.close()

    def submit(self, results: Sequence[list]) -> Future:
        """Computes the metrics of one candidate.

        Args:
            results: Per metric, what its `process` put into `metric.results`,
                in the order of the images and in host memory. With workers, a
                copy of about the same size waits for its turn, and the caller
                may drop or change its own at once.

        Returns:
            With a dict of the values, their names as mmengine's evaluator gives
            them (`metric.prefix/name`), or with the error that came up: that of
            the metric, or a `UserError` when a process has died.
        """
        future = Future()
        if self._pool is None:
            try:
                future.set_result(compute(self.metrics, results))
            except Exception as error:
                future.set_exception(error)
            return future
        # not left to the pool, which would put every tensor into a file of its own
        pickled = pickle.dumps(list(results), pickle.HIGHEST_PROTOCOL)
        try:
            computing = self._pool.submit(_compute_pickled, pickled)
        except BrokenProcessPool as error:
            future.set_exception(_died(error))
        else:
            computing.add_done_callback(functools.partial(_pass_on, future))
        return future

    def close(self) -> None:
        """Ends the processes; what has not begun is cancelled."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._metrics.close()


def compute(metrics: Sequence[BaseMetric], results: Sequence[list]) -> dict[str, float]:
    """The values of all metrics in this process; `MetricPool.submit` says more."""
    values = {}
    for metric, own in zip(metrics, results):
        with _quiet():
            computed = metric.compute_metrics(own)
        metric.results = []
        prefix = f'{metric.prefix}/' if metric.prefix else ''
        values.update({prefix + name: value for name, value in computed.items()})
    return values


def result_bytes(results: object) -> int:
    """Host memory that results of metrics take, in bytes.

    Arrays and tensors count with the whole buffers that they look into: one
    box that a detector kept holds all the boxes that it was chosen from. What
    is there twice counts once.

    Args:
        results: As for `MetricPool.submit`, or anything of containers, arrays,
            tensors and plain objects.
    """
    seen: set = set()
    total = 0
    waiting = [results]
    while waiting:
        item = waiting.pop()
        if id(item) in seen or item is None or isinstance(item, (bool, type)):
            continue
        seen.add(id(item))
        # with the buffer of an array, where it is the array's own
        total += sys.getsizeof(item)
        if isinstance(item, Tensor):
            storage = item.untyped_storage()
            if item.device.type == 'cpu' and ('at', storage.data_ptr()) not in seen:
                seen.add(('at', storage.data_ptr()))
                total += storage.nbytes()
        elif isinstance(item, np.ndarray):
            waiting.append(item.base)
            if item.dtype.hasobject:
                waiting.extend(item.flat)
        elif isinstance(item, Mapping):
            waiting.extend(item.keys())
            waiting.extend(item.values())
        elif isinstance(item, (list, tuple, set, frozenset)):
            waiting.extend(item)
        elif not isinstance(item, (str, bytes, int, float, np.generic)):
            waiting.append(getattr(item, '__dict__', None))
    return total


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps metrics from logging a table per candidate."""
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextlib.contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Variables for processes that start meanwhile."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _pickled_metrics(metrics: Sequence[BaseMetric]) -> bytes:
    kept = [metric.results for metric in metrics]
    try:
        for metric in metrics:
            metric.results = []
        return pickle.dumps(list(metrics), pickle.HIGHEST_PROTOCOL)
    except Exception as error:
        raise UserError(
            f'A metric must be picklable for scoring processes, but one of '
            f'{", ".join(type(metric).__name__ for metric in metrics)} is not: '
            f'{error}. Use 0 scoring processes.'
        ) from error
    finally:
        for metric, results in zip(metrics, kept):
            metric.results = results


def _pass_on(future: Future, computing: Future) -> None:
    if computing.cancelled():
        future.cancel()
    elif isinstance(error := computing.exception(), BrokenProcessPool):
        future.set_exception(_died(error))
    elif error is not None:
        future.set_exception(error)
    else:
        future.set_result(computing.result())


def _died(error: Exception) -> UserError:
    died = UserError(
        'A scoring process ended before it gave its result: it was killed, perhaps '
        'for want of memory, or it could not start. Start again with fewer scoring '
        'processes, or with 0.'
    )
    died.__cause__ = error
    return died


# What follows runs in the scoring processes.

_queue = None
_metrics: list[BaseMetric] | None = None


def _start(metrics: multiprocessing.Queue, path: list[str]) -> None:
    global _queue
    _queue = metrics
    sys.path[:] = path
    os.environ.update(ENVIRONMENT)
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    # the process that waits for the results is the one that is interrupted
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    # of itself, a pool's process waits for work forever when its parent is killed
    multiprocessing.parent_process().join()
    os._exit(1)


def _nothing() -> None:
    pass


def _compute_pickled(pickled: bytes) -> dict[str, float]:
    global _metrics
    if _metrics is None:  # not at the start, where an error would be lost
        _metrics = pickle.loads(_queue.get())
    return compute(_metrics, pickle.loads(pickled))
