"""Refuse bad data with one clear message, before any work.

mmdet trusts its data: a category that no class names or an archval that was
trained on do not stop it, they spoil the result. `check_config` looks at all
data sets of a config in one go.
"""

import os
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import product

from mmcr.data.coco import DataError, read_coco
from mmcr.data.contents import (
    Contents,
    built_contents,
    coco_contents,
    some_names,
)
from mmcr.data.images import SAMPLE, check_files, decode_some
from mmcr.data.objects import check_boxes, check_masks
from mmcr.data.sets import (
    CocoSet,
    as_read,
    class_names,
    dataset_class,
    evaluators,
    image_folder,
    inner_sets,
    is_local,
    joined,
    pipelines,
    resolved,
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
            f'{some_names(missing)} of its {len(classes)} classes are not; the '
            f'file has {some_names(names)}. {remedy} and num_classes='
            f'{len(names)} in the heads.'
        )
    kept = [name for name in names if name in classes]
    if kept != list(classes):
        raise DataError(
            f"The classes of a dataset must stand in the order of '{path}', "
            f'{some_names(kept)}, but are {some_names(classes)}: mmdet would give them '
            f"each other's names. {remedy}."
        )
    if num_classes is not None and num_classes != len(classes):
        raise DataError(
            f'A head must predict as many classes as the dataset has, but '
            f"{head} has num_classes={num_classes} and '{path}' is used with "
            f'{len(classes)}: {some_names(classes)}. Set num_classes='
            f'{len(classes)} in every head, or correct metainfo.'
        )
    if len(kept) < len(names):
        dropped = [name for name in names if name not in classes]
        warnings.warn(
            f"Annotations of {some_names(dropped)} in '{path}' are left out: they "
            'are not among the classes of the dataset.',
            stacklevel=2,
        )


def check_disjoint(train: CocoSet, val: CocoSet) -> None:
    """Check that no image of archval belongs to a set to train or calibrate on.

    Images are told apart by the path of their file, links resolved. Equal ids
    prove nothing, since independent files all count from one; they are only
    reported.

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


def image_files(dataset: Mapping, place: str) -> set[str] | None:
    """The paths of the images that a data set uses, wrapped or not, links resolved.

    Args:
        place: The data loader, for messages.

    Returns:
        `None` where they cannot be told here, as those on no local disk.

    Raises:
        DataError: The annotations cannot be read.
    """
    found = set()
    for leaf in inner_sets(dataset):
        if _elsewhere(leaf):
            return None
        if _is_coco(leaf) and not _has_own_form(leaf) and leaf.get('indices') is None:
            path = joined(leaf, leaf.get('ann_file') or '')
            coco = read_coco(path, annotated=False)
            found.update(CocoSet(path, image_folder(leaf, place), (), coco).paths)
        elif built := built_contents(leaf, place):
            found.update(resolved(built.sizes))
        else:
            return None
    return found


def check_config(cfg: Mapping, decode: int | None = SAMPLE) -> str:
    """Check the data sets of an mmengine config before it is run.

    For each data loader and every data set in it, wrapped or not, the annotations are
    read: there must be boxes of the classes, and masks where the pipeline or the
    metric asks for them. All images must be files, and those that are decoded of the
    annotated size. Of COCO's form, the file itself is checked (`read_coco`), and its
    categories against the classes (`check_classes`); others are built. The evaluator
    must read the same file. archval must share no image with the sets to train and to
    calibrate on: it is what `val_cfg` or `test_cfg` reads where its loop is an
    `Arch...Loop`. Each file is parsed once, and kept until `forget`.

    Args:
        decode: How many images of each set, `None` for all.

    Returns:
        What was found, a few lines for people.

    Raises:
        DataError: The first of these that does not hold.
    """
    heads = dict(_head_counts(cfg.get('model') or {}, 'model')) or {'the model': None}
    loaders = {name: cfg.get(name) for name in LOADERS}
    for phase in ('val_cfg', 'test_cfg'):
        loader = (cfg.get(phase) or {}).get('calibration_dataloader')
        loaders[f'{phase}.calibration_dataloader'] = loader
    look = _Look(heads, decode)
    found: dict[str, list[CocoSet]] = {}
    for place, loader in loaders.items():
        metrics = evaluators(cfg, place)
        found[place] = look.at((loader or {}).get('dataset'), place, metrics)
        coco = [m for m in metrics if 'Coco' in type_name(m.get('type'))]
        _check_evaluators(coco, found[place], place)
    learnt_from = [
        s for place in found if place not in LOADERS[1:] for s in found[place]
    ]
    for phase in ('val', 'test'):
        loop = type_name((cfg.get(f'{phase}_cfg') or {}).get('type'))
        if re.fullmatch(r'Arch\w*Loop', loop):
            for train, val in product(learnt_from, found[f'{phase}_dataloader']):
                check_disjoint(train, val)
    return '\n'.join(
        f'{", ".join(dict.fromkeys(places))}: {line}'
        for line, places in look.lines.items()
    )


class _Look:
    """Looks at data sets, at each of them once.

    Attributes:
        lines: What was found, with the loaders it was found in.
    """

    def __init__(self, heads: Mapping[str, int | None], decode: int | None) -> None:
        self.heads, self.decode = heads, decode
        self.lines: dict[str, list[str]] = {}
        self._decoded: dict[tuple, str] = {}

    def at(
        self, dataset: Mapping | None, place: str, metrics: Sequence[Mapping]
    ) -> list[CocoSet]:
        """Checks a loader's data set; returns what it has of COCO's form."""
        annotated = not any(metric.get('format_only') for metric in metrics)
        sets, contents = [], []
        for leaf in inner_sets(dataset):
            far = _elsewhere(leaf)
            if far:
                self._say(place, f'not looked at, since {far}')
                return []
            if _is_coco(leaf):
                sets.append(self._coco(leaf, place, annotated))
                own = built_contents(leaf, place) if _has_own_form(leaf) else None
                contents.append(own or coco_contents(sets[-1], annotated))
            elif built := built_contents(leaf, place):
                contents.append(built)
            else:
                return sets
            self._images(leaf, place, contents[-1])
        if place == LOADERS[0]:
            masks = any(step.get('with_mask') for step in pipelines(dataset))
            use, wanting = 'train', 'The pipeline of train_dataloader (with_mask)'
        else:
            masks = any('segm' in (m.get('metric') or ()) for m in metrics)
            use, wanting = 'score', 'The metric segm'
        counted = [each for each in contents if each.boxes is not None]
        if counted and (use == 'train' or metrics) and annotated:
            boxes = sum((each.boxes for each in counted), Counter())
            owner = ' and '.join(dict.fromkeys(each.owner for each in counted))
            check_boxes(boxes, use, owner, counted[0].classes)
            for data in sets if masks else ():
                owner = f"'{data.ann_file}'"
                check_masks(data.coco, data.classes, owner, wanting, use == 'score')
        return sets

    def _coco(self, leaf: Mapping, place: str, annotated: bool) -> CocoSet:
        path = joined(leaf, leaf.get('ann_file') or '')
        coco = as_read(leaf, read_coco(path, annotated))
        data = CocoSet(path, image_folder(leaf, place), class_names(leaf), coco)
        for head, num_classes in self.heads.items():
            check_classes(data, num_classes, head)
        _check_filter(leaf, coco, place)
        return data

    def _images(self, leaf: Mapping, place: str, contents: Contents) -> None:
        steps = leaf.get('pipeline') or ()
        local = all(is_local(step.get('backend_args')) for step in steps)
        if not local or any('://' in path for path in contents.sizes):
            said = 'not looked at, since they are not on a local disk'
        else:
            kinds = ((type_name(step.get('type')), step) for step in steps)
            loads = next((s for name, s in kinds if name == 'LoadImageFromFile'), None)
            key = contents.owner, next(iter(contents.sizes), ''), str(loads)
            if key not in self._decoded:
                check_files([*contents.sizes], contents.owner, place)
                self._decoded[key] = decode_some(
                    contents.sizes, self.decode, loads, contents.owner
                )
            said = self._decoded[key]
        found = f'{len(contents.sizes):,} images ({said})'
        self._say(place, f'{contents.owner}: {found}, {contents}')

    def _say(self, place: str, line: str) -> None:
        self.lines.setdefault(line, []).append(place)


def _elsewhere(leaf: Mapping) -> str | None:
    """Why a data set cannot be looked at here, if it cannot."""
    if not is_local(leaf.get('backend_args')):
        return f'its files are not on a local disk ({leaf["backend_args"]["backend"]})'
    if '://' in joined(leaf, leaf.get('ann_file') or ''):
        return 'its files are not on a local disk'
    return None


def _is_coco(leaf: Mapping) -> bool:
    """Whether mmdet reads it as COCO's boxes, not in a way of its own."""
    from mmdet.datasets import CocoDataset, Objects365V1Dataset

    kind = dataset_class(leaf)
    return (
        isinstance(kind, type)
        and issubclass(kind, CocoDataset)
        and kind.COCOAPI is CocoDataset.COCOAPI
        and kind.load_data_list
        in (CocoDataset.load_data_list, Objects365V1Dataset.load_data_list)
    )


def _has_own_form(leaf: Mapping) -> bool:
    """Whether it makes of COCO's entries something else than mmdet, such as paths."""
    from mmdet.datasets import CocoDataset

    return dataset_class(leaf).parse_data_info is not CocoDataset.parse_data_info


def _check_filter(leaf: Mapping, coco: Mapping, place: str) -> None:
    least = (leaf.get('filter_cfg') or {}).get('min_size', 0)
    sides = [min(image['width'], image['height']) for image in coco['images']]
    if not leaf.get('test_mode') and max(sides) < least:
        raise DataError(
            f'filter_cfg of {place} must leave images, but min_size={least} leaves out '
            f'all {len(sides)}, which are at most {max(sides)} pixels high or wide. '
            f'Set a smaller min_size.'
        )


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
