"""Data sets in configs: what lies inside of wrappers, its paths and its classes."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter

from mmcr.data.coco import DataError


@dataclass(frozen=True)
class CocoSet:
    """A data set in COCO format: paths, names of the classes, annotations."""

    ann_file: str
    folder: str
    classes: Sequence[str]
    coco: Mapping

    @cached_property
    def paths(self) -> list[str]:
        """Of each entry of the images, the path of its file (`resolved`)."""
        names = (image['file_name'] for image in self.coco['images'])
        return [*resolved(os.path.join(self.folder, name) for name in names)]

    @property
    def images(self) -> dict[str, dict]:
        """The entries of the images by the path of their file."""
        return dict(zip(self.paths, self.coco['images']))


def resolved(paths: Iterable[str]) -> Iterator[str]:
    """Paths without links, so that a file has one whatever leads to it."""
    folders = {}  # each looked at once: for all of COCO's images that is slow
    for path in paths:
        if '://' in path:
            yield os.path.normpath(path)
            continue
        folder, name = os.path.split(path)
        if folder not in folders:
            folders[folder] = os.path.realpath(folder)
        path = os.path.join(folders[folder], name)
        yield os.path.realpath(path) if os.path.islink(path) else path


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
    """A path of a data set, relative ones under its `data_root`; or an address.

    Raises:
        DataError: It is no text.
    """
    root = dataset.get('data_root') or ''
    for each in (root, path):
        if not isinstance(each, str):
            raise DataError(
                f'data_root, ann_file and data_prefix.img of a dataset must be texts, '
                f'but one of {dataset.get("type")} is {each!r}. Write it in quotes.'
            )
    return path if '://' in path else os.path.join(root, path)


def image_prefix(dataset: Mapping, loader: str) -> str | None:
    """What a data set in `loader` puts before the names of its images.

    Raises:
        DataError: `data_prefix` is no mapping.
    """
    prefix = dataset.get('data_prefix') or {}
    if not isinstance(prefix, Mapping):
        raise DataError(
            f"data_prefix of {loader} must be a mapping, dict(img='FOLDER/'), but is "
            f'{prefix!r}. Write data_prefix=dict(img={prefix!r}) if that is the folder '
            f'of its images.'
        )
    return prefix.get('img')


def image_folder(dataset: Mapping, loader: str) -> str:
    """The folder of the images of a data set in `loader`.

    Raises:
        DataError: It names none.
    """
    prefix = image_prefix(dataset, loader)
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
        DataError: They are a text that is no file, or a file of no text.
    """
    metainfo = dataset.get('metainfo') or {}
    if not isinstance(metainfo, Mapping):
        raise DataError(
            f'metainfo of a dataset must be a mapping, dict(classes=...), but is '
            f'{metainfo!r}. Write metainfo=dict(classes={metainfo!r}) if these are '
            f'its classes.'
        )
    classes = metainfo.get('classes')
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
    from mmengine.fileio import list_from_file  # as mmdet reads it

    try:
        return list_from_file(classes)
    except UnicodeDecodeError as error:
        raise DataError(
            f"A file of classes must be UTF-8, but '{classes}' is not: {error}. Save "
            f'it as UTF-8.'
        ) from None
