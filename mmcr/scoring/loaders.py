"""Batches that do not depend on how many processes share them."""

import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from mmdet.datasets.samplers import AspectRatioBatchSampler
from mmengine.config import ConfigDict
from mmengine.dist import get_dist_info
from mmengine.runner import Runner
from torch.utils.data import DataLoader, Dataset, Sampler

from mmcr.data.sets import inner_sets
from mmcr.errors import UserError


class BatchShardSampler(Sampler):
    """Deals out whole batches: batch j of the images goes to rank j modulo world size.

    With mmengine's `DefaultSampler`, which deals out single images and repeats some,
    batches, and with them scores, would depend on the number of ranks. The last batch
    may be smaller.
    """

    def __init__(self, indices: range | list[int], batch_size: int) -> None:
        self._indices = list(indices)
        self.batch_size = batch_size
        self.num_batches = -(-len(self._indices) // batch_size)
        self._select(range(self.num_batches))

    @contextmanager
    def only(self, batches: Iterable[int]) -> Iterator[None]:
        """Draws these batches alone, given by rising global indices, for a while."""
        self._select(batches)
        try:
            yield
        finally:
            self._select(range(self.num_batches))

    def _select(self, batches: Iterable[int]) -> None:
        rank, world_size = get_dist_info()
        #: Global index of each batch that this rank draws, in order.
        self.batches = [j for j in batches if j % world_size == rank]
        self._own = [
            index
            for j in self.batches
            for index in self._indices[j * self.batch_size :][: self.batch_size]
        ]

    def __iter__(self) -> Iterator[int]:
        return iter(self._own)

    def __len__(self) -> int:
        return len(self._own)


def calibration_cfg(train: dict | None, archval: dict) -> dict:
    """Config of the training set in archval's batches, with archval's pipeline.

    Of a set that is wrapped (`RepeatDataset`, `MultiImageMixDataset`), what is inside.

    Raises:
        UserError: There is no training set whose images have a pipeline.
    """
    given = (train or {}).get('dataset')
    pipeline = next(inner_sets(archval['dataset']), {}).get('pipeline')
    sets = list(inner_sets(given))
    if not sets or not pipeline or not all('pipeline' in each for each in sets):
        raise UserError(
            'Batch norms are re-estimated on training images, read like those of '
            'archval: both must be data sets with a pipeline, or wrappers of such, but '
            f'got {given or None}. Set calibration_dataloader in val_cfg or test_cfg.'
        )
    sets = [{**each, 'pipeline': pipeline} for each in sets]
    if len(sets) > 1:
        keys = {key: given[key] for key in ('ignore_keys',) if key in given}
        sets = [dict(type='mmdet.ConcatDataset', datasets=sets, **keys)]
    return {**archval, 'dataset': sets[0]}


def annotations_first(loader: dict) -> dict:
    """The loader with boxes read right after the image, so that they move with it.

    mmdet's test pipelines read them last, in the coordinates of the original image.
    Of a wrapper, as `ConcatDataset`, the pipelines of the sets within are changed.
    """
    return {**loader, 'dataset': _annotations_first(loader['dataset'])}


def _annotations_first(dataset: dict) -> dict:
    if inner := dataset.get('datasets'):
        return {**dataset, 'datasets': list(map(_annotations_first, inner))}
    if inner := dataset.get('dataset'):
        return {**dataset, 'dataset': _annotations_first(inner)}
    steps = list(dataset.get('pipeline', ()))
    types = (step['type'] for step in steps)
    kinds = [getattr(kind, '__name__', str(kind)).split('.')[-1] for kind in types]
    images = [i for i, kind in enumerate(kinds) if kind.startswith('LoadImage')]
    if not images or 'LoadAnnotations' not in kinds:
        return dataset
    boxes = steps.pop(kinds.index('LoadAnnotations'))
    steps.insert(images[0] + 1, boxes)
    return {**dataset, 'pipeline': steps}


def build_loader(
    cfg: dict, name: str, num_images: int | None = None, seed: int = 0
) -> DataLoader:
    """Builds a loader with a `BatchShardSampler` in the place of its sampler.

    The images come in random order, so that the first so many batches are a fair sample
    of all. Batches hold images of one orientation as far as these go, which need less
    padding.

    Args:
        cfg: Of mmengine's form.
        name: What messages call the loader.
        num_images: How many images to draw; ``None`` takes all.
        seed: Of the order and the draw.

    Raises:
        UserError: There are no images, or fewer batches than processes.
    """
    cfg = ConfigDict(cfg)
    batch_size = cfg.get('batch_size', 1)
    cfg.sampler = None
    cfg.pop('batch_sampler', None)  # of a training loader; it would mix the shards
    cfg.drop_last = False
    loader = Runner.build_dataloader(cfg, seed=seed)
    size = len(loader.dataset)
    indices = random.Random(seed).sample(range(size), size)[:num_images]
    if indices:
        indices = _by_orientation(loader.dataset, indices, batch_size)
    sampler = BatchShardSampler(indices, batch_size)
    world_size = get_dist_info()[1]
    if sampler.num_batches < world_size:
        raise UserError(
            f'{name} must hold at least one batch per process, but {len(indices)} '
            f'images in batches of {batch_size} make {sampler.num_batches} for '
            f'{world_size} processes. Use more images, smaller batches or fewer '
            f'processes.'
        )
    cfg.dataset, cfg.sampler = loader.dataset, sampler
    return Runner.build_dataloader(cfg, seed=seed)


class _InOrder(Sampler):
    def __init__(self, dataset: Dataset, indices: list[int]) -> None:
        self.dataset, self.indices = dataset, indices

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices)


def _by_orientation(dataset: Dataset, indices: list[int], batch_size: int) -> list[int]:
    if not {'width', 'height'} <= set(dataset.get_data_info(indices[0])):
        return indices
    batches = AspectRatioBatchSampler(_InOrder(dataset, indices), batch_size)
    return [index for batch in batches for index in batch]
