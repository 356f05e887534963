"""Exact resume: training that was interrupted ends where it would have ended anyway."""

import random
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import chain, islice, repeat

import numpy as np
import torch
from mmdet.models import BatchSyncRandomResize
from mmengine.dataset import InfiniteSampler
from mmengine.dist import get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.runner import BaseLoop, EpochBasedTrainLoop, IterBasedTrainLoop, Runner
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset

from mmcr.errors import UserError
from mmcr.models.detector import unwrapped
from mmcr.models.weights.checkpoint import check_finite
from mmcr.models.weights.compatibility import check_start
from mmcr.registry import HOOKS

#: Where data sets, and transforms of several others, keep these.
PARTS = (
    *('dataset', '_dataset', 'datasets', 'pipeline', 'transforms', 'transform'),
    *('aug', 'branch_pipelines'),
)
GENERATORS = (
    random.Random,
    np.random.Generator,
    np.random.RandomState,
    torch.Generator,
)


@HOOKS.register_module()
class ExactResumeHook(Hook):
    """Makes a resumed run equal, bit for bit, to one that was never interrupted.

    mmengine restores no random number generator and no position inside an epoch. Here
    the generators are seeded before every iteration, and in the workers before every
    batch, with a function of the run's seed, the rank and the iteration: no state has
    to be saved, and what happens between iterations leaves no trace. The validation
    that is due where the run goes on is done first: mmengine saves before it.

    Images, augmentations, samples and paths are the same on every device; weights
    only where the kernels are deterministic, as on a CPU. Where the pipeline keeps
    something from image to image, as mmdet's ``CachedMosaic`` does, the log warns.

    Raises:
        UserError: A checkpoint that is loaded is not finite, or the backbone of one to
            start from is another.
    """

    priority = 'VERY_HIGH'  # what other hooks draw comes after

    def __init__(self) -> None:
        self._state = None  # of the checkpoint that the run goes on from
        self._done = 0  # batches of an interrupted epoch
        # iteration at which this epoch began, or would have with today's batch size
        self._began = 0
        self._validated = None  # iteration of the last validation

    def before_train(self, runner: Runner) -> None:
        try:
            self.batches = number_batches(
                runner.train_dataloader, runner.seed, get_rank(), 'batch'
            )
        except UserError as error:
            self.batches = None
            runner.logger.warning(f'{error} A resumed run will not be exact.')
            return
        if keeping := sorted(_keeping(runner.train_dataloader.dataset)):
            runner.logger.warning(
                f'{", ".join(keeping)} in the training pipeline keep images or random '
                f'numbers from image to image, in every worker: a run that is resumed '
                f'will not be exact.'
            )
        if self._state is not None:
            self._go_on(runner)

    def before_train_epoch(self, runner: Runner) -> None:
        if self.batches is None:
            return
        # a loop by iterations, all of which mmengine calls one epoch
        if hasattr(runner.train_loop, 'dataloader_iterator'):
            self.batches.seek(epoch=0, iteration=runner.iter, skip=runner.iter)
            self._begin_there(runner)
        else:
            self.batches.seek(runner.epoch, runner.iter, self._done)
            self._done = 0

    def after_train_epoch(self, runner: Runner) -> None:
        self._began = runner.iter  # for what saves after this hook

    def after_val_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        self._validated = runner.iter

    def _begin_there(self, runner: Runner) -> None:
        """Starts a loop by iterations where its batches stand, without loading."""
        loop = runner.train_loop
        images = loop.dataloader_iterator
        if hasattr(images, 'skip_iter'):
            images.skip_iter = lambda iterations: None
            return
        # That of mmengine 0.10.7 began when the loop was built, before this hook:
        # its workers took images of an endless sampler. It skips by asking for them.
        if isinstance(self.batches.sampler, InfiniteSampler):
            self.batches.sampler.indices = self.batches.sampler._indices_of_rank()
        # of mmdet's batch samplers, which empty a full one when they are asked again
        for name in '_aspect_ratio_buckets', '_buckets':
            for bucket in getattr(self.batches.batches, name, ()):
                bucket.clear()
        loop.dataloader._iterator = None  # that of persistent workers
        skipped = repeat(None, runner.iter)
        loop.dataloader_iterator = chain(skipped, type(images)(loop.dataloader))

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None
    ) -> None:
        seed_everything(runner.seed, get_rank(), 'step', runner.iter)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        if self.batches is None:
            return
        iteration = checkpoint['meta']['iter']
        checkpoint['exact_resume'] = dict(
            done=iteration - self._began,
            validated=self._validated == iteration,
            conditions=self._conditions(runner),
            length=len(self.batches),
            sampler_seed=getattr(self.batches.sampler, 'seed', None),
            # None: each process has its own, and this one cannot ask for them
            gradients=_gradients(runner) if get_world_size() == 1 else None,
            between_updates=bool(_gradients(runner)),
            batch_sizes=[each._input_size for each in _resizing(runner)],
        )

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        path = runner._load_from or runner.work_dir
        weights = checkpoint.get('state_dict', checkpoint)
        check_finite(weights, path)
        if runner._resume:
            checkpoint['meta'].pop('config', None)  # the runner would run it
            self._state = checkpoint.get('exact_resume', {})
            if self._state.get('validated') is False:  # of earlier ones nobody knows
                due = _DueValidation(at_start=self._state['done'] == 0)
                runner.register_hook(due, priority='LOWEST')
        else:
            check_start(weights, unwrapped(runner.model), path)

    def _go_on(self, runner: Runner) -> None:
        state, length = self._state, len(self.batches)
        for reason in self._inexact(runner):
            runner.logger.warning(
                f'{reason} The run goes on with the weights of the checkpoint, but '
                f'not bit for bit as one that was never interrupted.'
            )
        for each, size in zip(_resizing(runner), state.get('batch_sizes', ())):
            each._input_size = size
        if state.get('sampler_seed') is not None:
            self.batches.sampler.seed = state['sampler_seed']
        # an epoch of another length goes on after the same part of it
        before = state.get('length', length)
        done = state.get('done', runner.iter - runner.epoch * before)
        self._done = min(max(done, 0) * length // before, length)
        self._began = runner.iter - self._done
        if isinstance(loop := runner.train_loop, EpochBasedTrainLoop):
            left = loop.max_epochs - loop.epoch
            loop._max_iters = self._began + left * length  # others save at the last
        if gradients := state.get('gradients'):
            for name, parameter in unwrapped(runner.model).named_parameters():
                if name in gradients:
                    parameter.grad = gradients[name].to(parameter.device)
            runner.logger.info(
                'The gradients of the update that was interrupted are restored.'
            )

    def _inexact(self, runner: Runner) -> Iterator[str]:
        for name, part in unwrapped(runner.model).named_modules():
            if hasattr(part, 'update_hyperparameters'):  # as Dynamic R-CNN has it
                yield (
                    f'{name} ({type(part).__name__}) adapts its thresholds while it '
                    f'trains and saves them nowhere: they begin anew.'
                )
        if not self._state:
            yield 'The checkpoint was written without mmcr.ExactResumeHook.'
            return
        now = self._conditions(runner)
        for name, before in self._state['conditions'].items():
            if before != now[name]:
                yield (
                    f'An exact run has the same {name} throughout, but got '
                    f'{now[name]} after {before}.'
                )
        if self._state['between_updates'] and self._state['gradients'] is None:
            yield (
                'The checkpoint of a distributed run lies between two updates and '
                'lacks the gradients gathered so far: save them at multiples of '
                'accumulative_counts.'
            )

    def _conditions(self, runner: Runner) -> dict[str, int | None]:
        return {
            'number of processes': get_world_size(),
            'number of training images': len(runner.train_dataloader.dataset),
            'batch size': self.batches.batch_size,
        }


class _DueValidation(Hook):
    """Does the validation that a run was about to do when it was saved.

    Comes last of the hooks: they have what their checkpoint says, and an early stop
    keeps the loop from going on.

    Args:
        at_start: Whether the run goes on at the start of an epoch.
    """

    def __init__(self, at_start: bool) -> None:
        self.at_start = at_start

    def before_train(self, runner: Runner) -> None:
        if runner.val_loop is not None and self._is_due(runner.train_loop):
            runner.logger.info(
                'The checkpoint was saved before the validation that is due there: it '
                'is done now.'
            )
            runner.val_loop.run()

    def _is_due(self, loop: BaseLoop) -> bool:
        if isinstance(loop, EpochBasedTrainLoop):
            now, end = loop.epoch, loop.max_epochs
            if not self.at_start:
                return False
        elif isinstance(loop, IterBasedTrainLoop):
            now, end = loop.iter, loop.max_iters
        else:
            return False
        loop._decide_current_val_interval()  # as they do after each of these
        regular = now % loop.val_interval == 0 or now == end
        return now > 0 and now >= loop.val_begin and regular


def _gradients(runner: Runner) -> dict[str, Tensor]:
    """Those that are there after an iteration: of an update that is not done yet."""
    return {
        name: parameter.grad
        for name, parameter in unwrapped(runner.model).named_parameters()
        if parameter.grad is not None
    }


def _resizing(runner: Runner) -> list[nn.Module]:
    """What draws a size for several batches, and keeps it (of YOLOX and others)."""
    modules = unwrapped(runner.model).modules()
    return [m for m in modules if isinstance(m, BatchSyncRandomResize)]


def _keeping(part: object) -> set[str]:
    """Names of the transforms of a data set that keep something between two images."""
    found = set()
    if isinstance(part, Mapping):
        part = [*part.values()]
    if isinstance(part, list | tuple):
        found.update(*map(_keeping, part))
    for name, value in getattr(part, '__dict__', {}).items():
        if name in PARTS:
            found |= _keeping(value)
        if name == 'results_cache' or isinstance(value, GENERATORS):
            found.add(type(part).__name__)
    return found


def seed_everything(*stream: int | str) -> None:
    """Seeds Python's, NumPy's and torch's global random number generators."""
    rng = random.Random('/'.join(map(str, stream)))
    random.seed(rng.getrandbits(64))
    np.random.seed(rng.getrandbits(32))
    torch.manual_seed(rng.getrandbits(63))


class NumberedBatches:
    """Wraps a batch sampler: yields the number of the iteration with its indices.

    It can start anywhere; images of skipped batches are not loaded.
    """

    def __init__(self, batches) -> None:
        self.batches = batches
        self.sampler = getattr(batches, 'sampler', batches)  # where mmengine looks
        self.batch_size = getattr(batches, 'batch_size', None)
        self.drop_last = getattr(batches, 'drop_last', False)
        self.seek(0, 0, 0)

    def seek(self, epoch: int, iteration: int, skip: int) -> None:
        """Sets the position of the next pass.

        Args:
            epoch: Number of the pass; decides the order of the images.
            iteration: That the next batch is for.
            skip: Batches to leave out, in later passes where one has too few.
        """
        self.epoch, self.iteration, self.skip = epoch, iteration, skip

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[tuple[int, Sequence[int]]]:
        while True:
            if hasattr(self.sampler, 'set_epoch'):
                self.sampler.set_epoch(self.epoch)
            batches = iter(self.batches)
            skipped = sum(1 for _ in islice(batches, self.skip))
            self.skip -= skipped
            if not self.skip or not skipped:
                break
            self.epoch += 1
        for indices in batches:
            self.iteration += 1
            yield self.iteration - 1, indices
        self.epoch += 1


def number_batches(loader: DataLoader, *stream: int | str) -> NumberedBatches:
    """Makes what a loader loads a function of the iteration alone.

    The process that loads a batch seeds its generators for it. Reaches into torch's
    `DataLoader` in two places, checked against torch 2.13.

    Args:
        loader: Whose workers have not started; one numbered already stays as it is.
        stream: Part of the seed, beside the iteration.

    Raises:
        UserError: The loader does not go by batches of indices.
    """
    if isinstance(loader.dataset, IterableDataset) or loader.batch_sampler is None:
        raise UserError(
            f'train_dataloader must have a map-style dataset and a batch size or a '
            f'batch sampler, for its batches to be numbered, but got '
            f'{type(loader.dataset).__name__} and {loader.batch_sampler}.'
        )
    if isinstance(loader.batch_sampler, NumberedBatches):  # another training with it
        return loader.batch_sampler
    dataset = loader.dataset
    # torch's fetcher asks a dataset for whole batches where it has this
    dataset.__getitems__ = partial(
        _load, dataset, getattr(dataset, '__getitems__', None), stream
    )
    batches = NumberedBatches(loader.batch_sampler)
    # past the loader's __setattr__, which forbids to change its batch sampler
    object.__setattr__(loader, 'batch_sampler', batches)
    return batches


def _load(
    dataset: Dataset, getitems, stream: tuple, numbered: tuple[int, Sequence[int]]
) -> list:
    iteration, indices = numbered
    seed_everything(*stream, iteration)
    if getitems is not None:
        return getitems(indices)
    return [dataset[index] for index in indices]
