"""Training batches that depend on nothing but the seed and their iteration."""

import random
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset

from mmcr.errors import UserError


def seed_everything(*stream: int | str) -> None:
    """Starts a stream of chance in Python's, numpy's and torch's global generators.

    Args:
        stream: What tells it from other streams.
    """
    rng = random.Random('/'.join(map(str, stream)))
    random.seed(rng.getrandbits(64))
    np.random.seed(rng.getrandbits(32))
    torch.manual_seed(rng.getrandbits(63))


class NumberedBatches:
    """A batch sampler that can go to any position, and says which it is at.

    Yields for every batch the iteration that it is for and the indices of its
    images. Of skipped batches no image is loaded.

    Args:
        batches: The batch sampler to go through.
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

    Before the images of a batch are loaded, the generators of the process that
    loads them begin a stream of their own: what the pipeline draws depends neither
    on earlier batches nor on the number of workers.

    Args:
        loader: That has no workers yet; numbered again it stays as it is.
        stream: What tells the chance of this loader from other.

    Returns:
        Where to set the position.

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
    # torch asks a dataset for whole batches where it has this
    dataset.__getitems__ = partial(
        _load, dataset, getattr(dataset, '__getitems__', None), stream
    )
    batches = NumberedBatches(loader.batch_sampler)
    # past the loader's guard, which keeps its batch size and its sampler in accord
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
