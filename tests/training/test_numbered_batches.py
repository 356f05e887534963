"""Training batches that depend on nothing but the seed and their iteration."""

import random

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset

from mmcr.errors import UserError
from mmcr.training.resume_hook import number_batches


class Images(Dataset):
    """Draws a number for every image and counts what it loads."""

    def __init__(self):
        self.loaded = []

    def __len__(self):
        return 10

    def __getitem__(self, index):
        self.loaded.append(index)
        return index, random.random(), np.random.rand(), torch.rand(()).item()


def batches_of(images, workers=0, stream='test', **position):
    loader = DataLoader(images, 3, num_workers=workers, collate_fn=list)
    number_batches(loader, stream).seek(**position)
    return list(loader)


def test_skipped_batches_are_not_loaded():
    images = Images()
    whole = batches_of(Images(), epoch=0, iteration=5, skip=0)
    assert batches_of(images, epoch=0, iteration=7, skip=2) == whole[2:]
    assert images.loaded == [6, 7, 8, 9]


def test_batches_depend_on_their_iteration_alone():
    """Not on what was drawn before, nor on how many processes load them."""
    whole = batches_of(Images(), epoch=0, iteration=5, skip=0)
    assert batches_of(Images(), workers=2, epoch=0, iteration=5, skip=0) == whole
    for i in (1, 2, 3):
        assert len({each[i] for batch in whole for each in batch}) == 10
    for change in (dict(iteration=6), dict(stream='other')):
        other = batches_of(Images(), **{**dict(epoch=0, iteration=5, skip=0), **change})
        assert other[0] != whole[0]


def test_a_dataset_that_loads_whole_batches_is_asked_for_them():
    class Whole(Images):
        def __getitems__(self, indices):
            return [(index, random.random()) for index in indices]

    whole = batches_of(Whole(), epoch=0, iteration=0, skip=0)
    assert [index for index, _ in sum(whole, [])] == [*range(10)]
    assert batches_of(Whole(), epoch=0, iteration=2, skip=2) == whole[2:]


def test_a_loader_is_numbered_once():
    loader = DataLoader(Images(), 3)
    assert number_batches(loader, 0) is number_batches(loader, 0)
    assert len(list(loader)) == len(loader) == 4


def test_batches_that_have_no_number():
    class Stream(IterableDataset):
        def __iter__(self):
            yield from range(3)

    for loader in (DataLoader(Stream()), DataLoader(Images(), batch_size=None)):
        with pytest.raises(UserError, match='map-style dataset and a batch size'):
            number_batches(loader, 0)
