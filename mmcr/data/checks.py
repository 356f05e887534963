"""Refuse bad data with one clear message, before any work.

mmdet trusts its data: a category that no class names or an archval that was
trained on do not stop it, they spoil the result. `check_config` looks at all
data sets of a config in one go.
"""

import os
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from itertools import product

from mmcr.data.coco import DataError, read_coco
from mmcr.data.sets import (
    CocoSet,
    class_names,
    evaluators,
    image_folder,
    inner_sets,
    joined,
    type_name,
)

LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
_SPLIT_TOOL = 'tools/dataset_converters/split_coco.py'


def check_classes(
    data: CocoSet, num_classes: int | None = None, head: str = 'the model'
) -> None:
    """Check that a file's categories, a data set's classes and a head agree.

    mmdet numbers the labels of a file by *its* categories, without those
    that are no class, and says nothing: with a class missing or in another
    place, every later label means something else. Categories beyond the
    classes are how mmdet trains on a part of them, and only warned of.

    Args:
        data: Of its annotations, `categories` alone is read.
        num_classes: What the head predicts, None for not known.
        head: Where the head stands, for the message.

    Raises:
        DataError: They do not agree.
    """
    path, classes = data.ann_file, data.classes
    names = [category['name'] for category in data.coco['categories']]
    spelled = repr(tuple(names)) if len(names) <= 20 else '(all names of the file)'
    remedy = f'Set metainfo=dict(classes={spelled}) in the dataset'
    missing = [name for name in classes if name not in names]
    if missing:
        raise DataError(
            f"Every class of a dataset must be a category of '{path}', but "
            f'{_some(missing)} of its {len(classes)} classes are not; the '
            f'file has {_some(names)}. {remedy} and num_classes='
            f'{len(names)} in the heads.'
        )
    kept = [name for name in names if name in classes]
    if kept != list(classes):
        raise DataError(
            f"The classes of a dataset must stand in the order of '{path}', "
            f'{_some(kept)}, but are {_some(classes)}: mmdet would give them '
            f"each other's names. {remedy}."
        )
    if num_classes is not None and num_classes != len(classes):
        raise DataError(
            f'A head must predict as many classes as the dataset has, but '
            f"{head} has num_classes={num_classes} and '{path}' is used with "
            f'{len(classes)}: {_some(classes)}. Set num_classes='
            f'{len(classes)} in every head, or correct metainfo.'
        )
    if len(kept) < len(names):
        dropped = [name for name in names if name not in classes]
        warnings.warn(
            f"Annotations of {_some(dropped)} in '{path}' are left out: they "
            'are not among the classes of the dataset.',
            stacklevel=2,
        )


def _some(names: Sequence[str]) -> str:
    """A list of names, cut to what a message can hold."""
    shown = ', '.join(repr(name) for name in names[:8])
    more = len(names) - 8
    return shown + (f' and {more} more' if more > 0 else '')


def check_disjoint(train: CocoSet, val: CocoSet) -> None:
    """Check that no image of archval belongs to a set to train or calibrate on.

    Images are told apart by the path of their file. Equal ids prove nothing,
    since independent files all count from one; they are only reported.

    Raises:
        DataError: They share images.
    """
    trained, held = train.images, val.images
    shared = [image for path, image in held.items() if path in trained]
    if shared:
        examples = ', '.join(f"'{i['file_name']}' (id {i['id']})" for i in shared[:3])
        raise DataError(
            'archval must share no image with the data that is trained or '
            f'calibrated on, but {len(shared)} of the {len(held)} images of '
            f"'{val.ann_file}' are in '{train.ann_file}' too, for example {examples}. "
            f'Make both from one file: python {_SPLIT_TOOL} ANN --archval N.'
        )


def check_config(cfg: Mapping) -> None:
    """Check the COCO data sets of an mmengine config before it is run.

    For each data loader and every COCO dataset in it, wrapped or not: the
    annotation file (`read_coco`), its categories against the dataset's
    classes and every head (`check_classes`), the image folder, and that the
    evaluator reads the same file. archval must share no image with the sets
    to train and to calibrate on: it is what `val_cfg` or `test_cfg` reads
    where its loop is an `Arch...Loop`. Each file is parsed once. Files that are not
    on a local disk are skipped.

    Raises:
        DataError: The first of these that does not hold.
    """

    @cache
    def read(path: str, annotated: bool) -> dict:
        coco = read_coco(path, annotated)
        return {key: coco[key] for key in ('images', 'categories')}

    heads = dict(_head_counts(cfg.get('model') or {}, 'model')) or {'the model': None}
    loaders = {name: cfg.get(name) for name in LOADERS}
    for phase in ('val_cfg', 'test_cfg'):
        loader = (cfg.get(phase) or {}).get('calibration_dataloader')
        loaders[f'{phase}.calibration_dataloader'] = loader
    found: dict[str, list[CocoSet]] = {}
    for place, loader in loaders.items():
        metrics = [
            m for m in evaluators(cfg, place) if 'Coco' in type_name(m.get('type'))
        ]
        annotated = not any(metric.get('format_only') for metric in metrics)
        leaves = filter(_is_local_coco, inner_sets((loader or {}).get('dataset')))
        found[place] = [
            _checked(leaf, place, heads, annotated, read) for leaf in leaves
        ]
        _check_evaluators(metrics, found[place], place)
    learnt_from = [
        s for place in found if place not in LOADERS[1:] for s in found[place]
    ]
    for phase in ('val', 'test'):
        loop = type_name((cfg.get(f'{phase}_cfg') or {}).get('type'))
        if re.fullmatch(r'Arch\w*Loop', loop):
            for train, val in product(learnt_from, found[f'{phase}_dataloader']):
                check_disjoint(train, val)


def _is_local_coco(dataset: Mapping) -> bool:
    # CocoPanopticDataset, RefCocoDataset, ... have annotations of other forms
    return bool(
        re.fullmatch(r'(?!.*Ref)\w*CocoDataset', type_name(dataset.get('type')))
        and dataset.get('ann_file')
        and not dataset.get('backend_args')
        and '://' not in joined(dataset, dataset['ann_file'])
    )


def _checked(
    dataset: Mapping,
    loader: str,
    heads: Mapping[str, int | None],
    annotated: bool,
    read: Callable[[str, bool], dict],
) -> CocoSet:
    path = joined(dataset, dataset['ann_file'])
    coco, folder = read(path, annotated), image_folder(dataset, loader)
    data = CocoSet(path, folder, class_names(dataset), coco)
    for head, num_classes in heads.items():
        check_classes(data, num_classes, head)
    first = os.path.join(folder, coco['images'][0]['file_name'])
    if not os.path.exists(first):
        there = os.path.isdir(folder or '.')
        lost = f"image '{first}'" if there else f"image folder '{folder}'"
        raise DataError(
            f"The images of '{path}' must lie in data_root/data_prefix.img, "
            f'but the {lost} does not exist (working directory: '
            f"'{os.getcwd()}'). Correct data_root or data_prefix in {loader}."
        )
    return data


def _head_counts(part: object, place: str) -> Iterator[tuple[str, int]]:
    """The places and values of `num_classes` inside a model's heads.

    Proposal heads know one class and semantic heads have classes of their
    own: both are passed over.
    """
    if isinstance(part, Mapping):
        count = part.get('num_classes')
        if isinstance(count, int) and 'head' in place:
            yield place, count
        for key in part:
            if key not in ('rpn_head', 'semantic_head'):
                yield from _head_counts(part[key], f'{place}.{key}')
    elif isinstance(part, (list, tuple)):
        for index, item in enumerate(part):
            yield from _head_counts(item, f'{place}[{index}]')


def _check_evaluators(
    metrics: list[Mapping], sources: list[CocoSet], loader: str
) -> None:
    files = {os.path.realpath(source.ann_file) for source in sources}
    for metric in metrics:
        path = metric.get('ann_file')
        if path and files and os.path.realpath(path) not in files:
            key = loader.replace('dataloader', 'evaluator')
            raise DataError(
                f'{key} must read the annotation file of {loader}, '
                f"'{sources[0].ann_file}', but reads '{path}'. Set "
                f"{key}.ann_file to '{sources[0].ann_file}'."
            )
