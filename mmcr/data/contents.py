"""What a data set of a config holds: of COCO's form from its file, else as built."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from xml.etree import ElementTree

from mmcr.data.coco import DataError
from mmcr.data.objects import OTHER, USABLE, count_boxes, left_out
from mmcr.data.sets import CocoSet, class_names, dataset_class


@dataclass(frozen=True)
class Contents:
    """The images and boxes of a data set.

    Attributes:
        owner: The annotation file in quotes, or the type where it has none.
        classes: Names in the order of labels.
        sizes: Height and width of the images as annotated, by path.
        boxes: Their number by what becomes of them (`count_boxes`); `None` where
            there are no annotations.
        ids: Of the images, in words.
    """

    owner: str
    classes: Sequence[str]
    sizes: Mapping[str, tuple[int, int]]
    boxes: Counter | None
    ids: str = ''

    def __str__(self) -> str:
        said = f'{len(self.classes)} classes: {some_names(self.classes)}'
        if self.boxes is not None:
            rest = left_out(self.boxes)
            rest = f' (left out: {rest})' if rest else ''
            said = f'{self.boxes[USABLE]:,} boxes{rest}, {said}'
        return said + (f'; image ids: {self.ids}' if self.ids else '')


def some_names(names: Sequence[str]) -> str:
    """A list of names, cut to what a message can hold."""
    more = len(names) - 8
    return ', '.join(map(repr, names[:8])) + (f' and {more} more' if more > 0 else '')


def coco_contents(data: CocoSet, annotated: bool) -> Contents:
    """What a data set of COCO's form holds, all images of its file."""
    images = data.coco['images']
    ids = [image['id'] for image in images]
    kinds = {type(value).__name__ for value in ids}
    return Contents(
        owner=f"'{data.ann_file}'",
        classes=data.classes,
        sizes={
            os.path.join(data.folder, image['file_name']): (
                image['height'],
                image['width'],
            )
            for image in images
        },
        boxes=count_boxes(data.coco, data.classes) if annotated else None,
        ids=f'{min(ids)} to {max(ids)}' if kinds == {'int'} else ' and '.join(kinds),
    )


def built_contents(dataset: Mapping, place: str) -> Contents | None:
    """What any other data set of mmdet's holds, as mmdet reads it.

    Args:
        place: The data loader, for messages.

    Returns:
        `None` where mmdet would tell no boxes by images.

    Raises:
        DataError: It cannot be read, or, with XML, classes are spelled in another way
            than the annotations spell them.
    """
    from mmdet.datasets import BaseDetDataset
    from mmdet.registry import DATASETS

    kind = dataset_class(dataset)
    if not isinstance(kind, type) or not issubclass(kind, BaseDetDataset):
        return None
    bare = {key: None for key in ('filter_cfg',) if key in dataset}
    try:
        built = DATASETS.build({**dataset, **bare, 'pipeline': []})
        infos = [built.get_data_info(i) for i in range(len(built))]
    except Exception as error:  # a data set is code: it may raise anything
        raise DataError(
            f'The data set of {place} must be readable, but mmdet ({kind.__name__}) '
            f'stops with {type(error).__name__}: {error}. Correct its files or its '
            f'options.'
        ) from error
    if not all('instances' in info and 'img_path' in info for info in infos):
        return None
    boxes = Counter(
        'to ignore' if instance.get('ignore_flag') else USABLE
        for info in infos
        for instance in info['instances']
    )
    owner = f"'{built.ann_file}'" if built.ann_file else kind.__name__
    classes = class_names(dataset)
    if all('xml_path' in info for info in infos):
        others = _other_names([info['xml_path'] for info in infos], classes)
        _check_spelling(others, classes, owner)
        boxes.update({f'{OTHER} ({some_names(sorted(others))})': others.total()})
    sizes = {
        info['img_path']: (info.get('height') or 0, info.get('width') or 0)
        for info in infos
    }
    return Contents(owner, classes, sizes, +boxes)


def _other_names(paths: Sequence[str], classes: Sequence[str]) -> Counter:
    names = Counter(
        name.text
        for path in paths
        for name in ElementTree.parse(path).iterfind('object/name')
    )
    return Counter({name: n for name, n in names.items() if name not in classes})


def _check_spelling(others: Counter, classes: Sequence[str], owner: str) -> None:
    meant = {name.strip().casefold(): name for name in classes}
    for name, count in others.items():
        if known := meant.get(str(name).strip().casefold()):
            raise DataError(
                f'Classes must be spelled as in the annotations of {owner}, but the '
                f'class {known!r} is {name!r} in them, {count} times. Set '
                f'metainfo=dict(classes=...) to the names that they have.'
            )
