"""Data sets in configs: what lies inside of wrappers, its paths and its classes."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path

from mmcr.data.coco import DataError


@dataclass(frozen=True)
class CocoSet:
    """A data set in COCO format: paths, names of the classes, annotations."""

    ann_file: str
    folder: str
    classes: Sequence[str]
    coco: Mapping

    @property
    def images(self) -> dict[str, dict]:
        """The entries of the images by the path of their file."""
        return {
            os.path.normpath(os.path.join(self.folder, image['file_name'])): image
            for image in self.coco['images']
        }


def inner_sets(dataset: Mapping | None) -> Iterator[Mapping]:
    """The data sets inside of wrappers, such as ConcatDataset, nested or not."""
    if not dataset:
        return
    inner = dataset.get('datasets') or [dataset.get('dataset')]
    if inner == [None]:
        yield dataset
    for wrapped in filter(None, inner):
        yield from inner_sets(wrapped)


def pipelines(dataset: Mapping | None) -> Iterator[Mapping]:
    """The transforms of a data set, of those inside of wrappers, and of wrappers."""
    if dataset:
        yield from dataset.get('pipeline') or ()
        for inner in dataset.get('datasets') or [dataset.get('dataset')]:
            yield from pipelines(inner)


def is_local(options: Mapping | None) -> bool:
    """Whether a data set's or a transform's `backend_args` name the local disk."""
    return (options or {}).get('backend', 'local') == 'local'


def type_name(kind: object) -> str:
    """The name of a type that a config gives as a class or a registry's key."""
    name = kind if isinstance(kind, str) else getattr(kind, '__name__', '')
    return name.rpartition('.')[2]


def joined(dataset: Mapping, path: str) -> str:
    """A path of a data set, relative ones under its `data_root`; or an address."""
    return path if '://' in path else os.path.join(dataset.get('data_root') or '', path)


def image_folder(dataset: Mapping, loader: str) -> str:
    """The folder of the images of a data set in `loader`.

    Raises:
        DataError: It names none.
    """
    prefix = (dataset.get('data_prefix') or {}).get('img')
    if prefix is None:
        raise DataError(
            f'The dataset of {loader} must name its image folder: '
            "set data_prefix=dict(img='FOLDER/')."
        )
    return joined(dataset, prefix)


def as_read(dataset: Mapping, coco: dict) -> dict:
    """Annotations with the categories in the order in which mmdet reads them."""
    if type_name(dataset['type']) != 'Objects365V1Dataset':
        return coco
    return {**coco, 'categories': sorted(coco['categories'], key=itemgetter('id'))}


def evaluators(cfg: Mapping, loader: str) -> list[Mapping]:
    """What a config evaluates the predictions for a loader with."""
    found = cfg.get(loader.replace('dataloader', 'evaluator')) or []
    return [found] if isinstance(found, Mapping) else found


def dataset_class(dataset: Mapping) -> type | None:
    """The class that a config builds, None where it is not registered."""
    # Only here, since it loads all of mmdet's data sets.
    from mmdet.registry import DATASETS

    kind = dataset.get('type')
    return DATASETS.get(kind) if isinstance(kind, str) else kind


def class_names(dataset: Mapping) -> Sequence[str]:
    """The classes of a data set: its own, those of a file, or its type's.

    Raises:
        DataError: They are a text that is no file.
    """
    classes = (dataset.get('metainfo') or {}).get('classes')
    if classes is None:
        from mmdet.datasets import CocoDataset

        cls = dataset_class(dataset)
        return getattr(cls, 'METAINFO', CocoDataset.METAINFO)['classes']
    if not isinstance(classes, str):
        return classes
    if not os.path.isfile(classes):
        raise DataError(
            'metainfo.classes must be a tuple of names or a text file of them, but '
            f"got the string {classes!r}. Write ('{classes}',) for a single class."
        )
    return Path(classes).read_text().splitlines()
