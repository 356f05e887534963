"""The data of a search: a detector's training set, split, whatever it is wrapped in."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config
from mmengine.fileio import get_local_path

from mmcr.data.checks import check_classes, check_disjoint, image_paths
from mmcr.data.coco import DataError, count_usable, read_coco
from mmcr.data.sets import (
    class_names,
    dataset_class,
    image_folder,
    inner_sets,
    joined,
    type_name,
)
from mmcr.data.split import check_archval, split_images, subset, write_annotations

TRAIN = 'train_dataloader'
#: What mmdet ships for sets of other forms, by the start of their type's name.
CONVERTERS = dict(
    VOC='pascal_voc.py DEVKIT --out-dir FOLDER --out-format coco',
    CrowdHuman='crowdhuman2coco.py --input FOLDER --output FOLDER',
)


@dataclass(frozen=True)
class SearchData:
    """What supernets are trained on and architectures are scored on.

    Attributes:
        train_dataloader: The user's, its wrappers and samplers as they are, with
            archtrain in the place of the training annotations.
        archval_dataloader: Of the form of the user's validation, of the held-out
            images.
        calibration_dataloader: As `archval_dataloader`, of archtrain's images
            without wrappers, to re-estimate batch norms.
        evaluator: Of archval: boxes, and masks where the user's evaluator has them.
        files: The annotation files that belong to it in the work dir.
        summary: The numbers of images in a line.
    """

    train_dataloader: dict
    archval_dataloader: dict
    calibration_dataloader: dict
    evaluator: dict
    files: tuple[Path, ...]
    summary: str


def search_data(
    cfg: Config, archval: int | str | Path | None, folder: str | Path, seed: int = 0
) -> SearchData:
    """Splits a detector's training data for a search.

    COCO sets are found inside of any wrapper. Annotation files go to
    ``folder/annotations``: ``archtrain.json`` and ``archval.json``; of several sets,
    ``archtrain_1.json`` and so on, and one ``archval.json``, whose ids are new and
    whose file names are absolute. Equal input gives equal bytes, and files that have
    them already are not touched.

    Args:
        cfg: Of any detector of mmdet's.
        archval: How many training images to hold out, of several sets in proportion
            to their images; or a COCO file of images that are held out already, in
            the folder of the training or of the validation images: then the training
            sets are used whole. ``None``: a tenth of the training images, at least
            50 (or half of them where they are fewer than 100) and at most 5,000.
        folder: The work dir.
        seed: Of the draw.

    Raises:
        DataError: A set is not of COCO's form, or its annotations cannot be used; an
            image is in two sets; nothing would be left to train or to score on; or
            there is no validation loader to take the form from.
    """
    settings = cfg.to_dict()
    train = settings.get(TRAIN) or {}
    sets = [_TrainingSet.read(leaf) for leaf in inner_sets(train.get('dataset'))]
    if not sets:
        raise DataError(
            f'A search needs training images, but {TRAIN}.dataset is '
            f'{train.get("dataset")}. Name a COCO set there.'
        )
    _check_sets(sets)
    out = _annotations_folder(folder, sets)
    template, validation = _validation(settings)
    metric = _metric(settings)
    total = sum(len(each.coco['images']) for each in sets)
    said = f'{total:,} images in {len(sets)} set{"s" * (len(sets) > 1)}'

    if isinstance(archval, str) and archval.isdigit():
        archval = int(archval)
    if isinstance(archval, (str, Path)):
        split = _given(Path(archval), sets, validation, out)
        held = len(split.archval['images'])
        said += f' to train on, {held:,} of {archval} to score on'
    else:
        if archval is None:
            archval = min(5000, max(total // 10, min(50, total // 2)))
        split = _drawn(sets, archval, out, seed)
        said += f': {total - archval:,} to train on, {archval:,} to score on '
        said += f'(seed {seed})'

    split.check(sets[0].classes, masks='segm' in metric['metric'])
    for path, coco in split.files.items():
        write_annotations(path, coco)
    pipeline = dict(pipeline=validation['pipeline'])
    calibration = [{**leaf, **pipeline} for leaf in split.trained]
    if len(calibration) > 1:
        calibration = [dict(type='mmdet.ConcatDataset', datasets=calibration)]
    scored = {**split.scored, **pipeline, 'test_mode': True}
    scored.pop('filter_cfg', None)
    return SearchData(
        train_dataloader={
            **train,
            'dataset': _replaced(train['dataset'], iter(split.trained)),
        },
        archval_dataloader={**template, 'dataset': scored},
        calibration_dataloader={**template, 'dataset': calibration[0]},
        evaluator=dict(
            type='mmcr.UnroundedCocoMetric', ann_file=scored['ann_file'], **metric
        ),
        files=tuple(split.files),
        summary=said,
    )


def scale_lr(cfg: Config, world_size: int) -> tuple[float, str] | None:
    """By how much mmengine scales the learning rate when `auto_scale_lr` is enabled.

    Args:
        cfg: Of a detector, with the batch size of one process in its training loader.
        world_size: Number of processes.

    Returns:
        The factor and a sentence on it; ``None`` where the rate is right as it is, or
        the config does not tell the batch size that it is for.
    """
    base = (cfg.get('auto_scale_lr') or {}).get('base_batch_size')
    batch_size = (cfg.get(TRAIN) or {}).get('batch_size')
    if not base or not batch_size or batch_size * world_size == base:
        return None
    factor = batch_size * world_size / base
    return factor, (
        f'The learning rate is for {base} images per step, but a step has '
        f'{batch_size * world_size} ({batch_size} per process): it is multiplied by '
        f'{factor:.4g}.'
    )


@dataclass(frozen=True)
class _TrainingSet:
    """A COCO set of the training loader.

    Attributes:
        config: With absolute paths.
        coco: Content of its annotation file, of the images that it uses.
    """

    config: dict
    coco: dict

    @classmethod
    def read(cls, leaf: dict) -> '_TrainingSet':
        _check_type(leaf)
        options = leaf.get('backend_args') or {}
        # elsewhere than on a disk, paths mean what their backend makes of them
        remote = options.get('backend', 'local') != 'local'
        path = joined(leaf, leaf.get('ann_file') or '')
        place = str if remote or '://' in path else os.path.abspath
        image_folder(leaf, TRAIN)
        prefixes = {
            key: place(joined(leaf, prefix))
            for key, prefix in leaf['data_prefix'].items()
        }
        leaf = {**leaf, 'ann_file': place(path), 'data_prefix': prefixes}
        metainfo = leaf.get('metainfo') or {}
        if isinstance(metainfo.get('classes'), str):  # a file, by a relative path
            leaf['metainfo'] = {**metainfo, 'classes': tuple(class_names(leaf))}
        with get_local_path(leaf['ann_file'], backend_args=options or None) as local:
            coco = read_coco(local)
        if type_name(leaf['type']) == 'Objects365V1Dataset':  # as it does
            coco['categories'].sort(key=lambda category: category['id'])
        if leaf.get('indices') is not None:
            coco = subset(coco, _used_images(leaf))
        return cls(leaf, coco)

    @property
    def ann_file(self) -> str:
        return self.config['ann_file']

    @property
    def folder(self) -> str:
        return self.config['data_prefix']['img']

    @property
    def classes(self) -> list[str]:
        return list(class_names(self.config))

    def of(self, ann_file: Path) -> dict:
        """The config of the set with another annotation file on disk, all of it."""
        kept = dict(self.config, ann_file=str(ann_file))
        for option in ('indices', 'backend_args'):
            kept.pop(option, None)
        return kept


@dataclass(frozen=True)
class _Split:
    """Which images are trained on and which are scored on.

    Attributes:
        archtrain: Content of the annotations of each training set.
        trained: Config of each training set.
        archval: Content of the annotations of the images that are scored on.
        scored: Config of their set.
        files: Content of the annotation files to write.
    """

    archtrain: list[dict]
    trained: list[dict]
    archval: dict
    scored: dict
    files: dict[Path, dict]

    def check(self, classes: list[str], masks: bool) -> None:
        """Raises `DataError` unless there are objects to train on and to score on."""
        for use, contents in (('train', self.archtrain), ('score', [self.archval])):
            if not sum(count_usable(coco, classes) for coco in contents):
                total = sum(len(coco['annotations']) for coco in contents)
                raise DataError(
                    f'There must be boxes to {use} on, but of {total} annotations of '
                    f'the images for it none is of use: of one of the classes '
                    f'{classes}, no crowd, and at least a pixel wide, high and large. '
                    f'Correct the annotations, or choose another archval.'
                )
        annotations = self.archval['annotations']
        lacking = [a['id'] for a in annotations if not a.get('segmentation')]
        if masks and lacking:
            raise DataError(
                f'val_evaluator measures masks (segm), which every annotation must '
                f'have, but {len(lacking)} of {len(annotations)} to score on have no '
                f'segmentation, for example those of id {lacking[:3]}. Add them, or '
                f'measure bbox alone.'
            )


def _replaced(dataset: dict, leaves: Iterator[dict]) -> dict:
    """The data set with others in the place of the inner ones, in their order."""
    if inner := dataset.get('datasets'):
        return {**dataset, 'datasets': [_replaced(each, leaves) for each in inner]}
    if inner := dataset.get('dataset'):
        return {**dataset, 'dataset': _replaced(inner, leaves)}
    return next(leaves)


def _check_type(leaf: dict) -> None:
    from mmdet.datasets import CocoDataset, CocoPanopticDataset

    cls, name = dataset_class(leaf), type_name(leaf.get('type'))
    if not isinstance(cls, type):
        raise DataError(
            f'The type of every data set must be registered, but {TRAIN} has '
            f'{leaf.get("type")!r}. Correct it, or import its module by custom_imports.'
        )
    if name.startswith('LVIS'):
        raise DataError(
            f"Architectures are compared by COCO's AP, which LVIS cannot be scored "
            f'with (of each image it annotates a part of the classes), but {TRAIN} '
            f'has {name}. Search on a set that is annotated completely.'
        )
    if not issubclass(cls, CocoDataset) or issubclass(cls, CocoPanopticDataset):
        raise DataError(
            f'Training annotations must be of the form of COCO detection (JSON), but '
            f'{TRAIN} has a {name}. {_how_to_convert(name)}, and use CocoDataset with '
            f'metainfo=dict(classes=...).'
        )


def _how_to_convert(name: str) -> str:
    import mmdet

    export = 'xport them as COCO from the program that they were annotated with'
    for start, command in CONVERTERS.items():
        if name.startswith(start):
            tools = Path(mmdet.__file__).parent / '.mim/tools/dataset_converters'
            return (
                f'Convert the original data by: python {tools}/{command} (it knows '
                f'their classes alone); if they are your own, e{export}'
            )
    return f'E{export}'


def _used_images(leaf: dict) -> set:
    """The ids of the images that the set's `indices` choose, as mmdet counts them."""
    from mmdet.registry import DATASETS

    built = DATASETS.build({**leaf, 'pipeline': [], 'lazy_init': False})
    return {built.get_data_info(i)['img_id'] for i in range(len(built))}


def _check_sets(sets: list[_TrainingSet]) -> None:
    owner: dict[str, str] = {}
    for each in sets:
        check_classes(each.coco, each.classes, None, each.ann_file)
        if each.classes != sets[0].classes:
            raise DataError(
                f'All sets of {TRAIN} must have the same classes, but they are '
                f"{sets[0].classes} with '{sets[0].ann_file}' and {each.classes} with "
                f"'{each.ann_file}'. Set metainfo=dict(classes=...) alike."
            )
        paths = image_paths(each.coco, each.folder)
        shared = sorted(paths.keys() & owner)
        if shared:
            raise DataError(
                f'No image may be in two sets of {TRAIN}, for one that is held out of '
                f'one would be trained on in the other, but {len(shared)} are in '
                f"'{owner[shared[0]]}' and in '{each.ann_file}', for example "
                f"'{shared[0]}'. List each once; RepeatDataset repeats a set."
            )
        owner.update(dict.fromkeys(paths, each.ann_file))


def _annotations_folder(folder: str | Path, sets: list[_TrainingSet]) -> Path:
    out = Path(folder).resolve() / 'annotations'
    for each in sets:
        if Path(each.ann_file).resolve().parent == out:
            raise DataError(
                f"Nothing is written beside the data, but '{each.ann_file}' is in "
                f"'{out}', where the split would go. Choose another work dir."
            )
    return out


def _validation(cfg: dict) -> tuple[dict, dict]:
    """The loader that images are scored with, and the set in it."""
    for name in ('val_dataloader', 'test_dataloader'):
        loader = cfg.get(name) or {}
        leaf = next(inner_sets(loader.get('dataset')), {})
        if leaf.get('pipeline'):
            return loader, leaf
    raise DataError(
        'Images are scored as the config validates, but it has no val_dataloader and '
        'no test_dataloader with a pipeline. Add one, as in mmdet '
        'configs/_base_/datasets/coco_detection.py.'
    )


def _metric(cfg: dict) -> dict:
    """The metric's options that follow from the user's evaluator."""
    evaluators = cfg.get('val_evaluator') or cfg.get('test_evaluator') or []
    if isinstance(evaluators, dict):
        evaluators = [evaluators]
    masks = any('segm' in (each.get('metric') or ()) for each in evaluators)
    chosen = dict(metric=['bbox', 'segm'] if masks else 'bbox')
    if any(each.get('sort_categories') for each in evaluators):  # for Objects365
        chosen['sort_categories'] = True
    return chosen


def _drawn(sets: list[_TrainingSet], archval: int, out: Path, seed: int) -> _Split:
    """Holds out training images."""
    sizes = [len(each.coco['images']) for each in sets]
    owner = TRAIN if len(sets) > 1 else f"'{sets[0].ann_file}'"
    check_archval(archval, sum(sizes), owner, len(sets))
    archtrain, trained, held, files = [], [], [], {}
    for number, (each, share) in enumerate(zip(sets, _shares(sizes, archval)), 1):
        rest, chosen = split_images(each.coco, share, seed, each.ann_file)
        path = out / f'archtrain{f"_{number}" if len(sets) > 1 else ""}.json'
        archtrain.append(rest)
        trained.append(each.of(path))
        held.append(chosen)
        files[path] = rest
    path = out / 'archval.json'
    scored, whole = sets[0].of(path), held[0]
    if len(sets) > 1:
        whole = _merged(held, sets)
        scored = _of_absolute_names(scored, sets[0].classes)
    return _Split(archtrain, trained, whole, scored, {**files, path: whole})


def _shares(sizes: list[int], total: int) -> list[int]:
    """Numbers in proportion to the sizes, by largest remainders, each less than it."""
    exact = [size * total / sum(sizes) for size in sizes]
    shares = [min(int(share), size - 1) for share, size in zip(exact, sizes)]
    while sum(shares) < total:
        open_sets = [i for i, size in enumerate(sizes) if shares[i] < size - 1]
        shares[max(open_sets, key=lambda i: exact[i] - shares[i])] += 1
    return shares


def _merged(parts: list[dict], sets: list[_TrainingSet]) -> dict:
    """One content of several, of their common classes alone."""
    classes = sets[0].classes
    images, annotations = [], []
    for part, own in zip(parts, sets):
        ids = {}
        for image in part['images']:
            ids[image['id']] = len(images) + 1
            path = os.path.join(own.folder, image['file_name'])
            images.append(dict(image, id=len(images) + 1, file_name=path))
        names = {each['id']: each['name'] for each in part['categories']}
        for each in part['annotations']:
            if names[each['category_id']] in classes:
                new = dict(
                    id=len(annotations) + 1,
                    image_id=ids[each['image_id']],
                    category_id=classes.index(names[each['category_id']]) + 1,
                )
                annotations.append({**each, **new})
    return dict(
        images=images,
        annotations=annotations,
        categories=[dict(id=n, name=name) for n, name in enumerate(classes, 1)],
    )


def _of_absolute_names(config: dict, classes: list[str]) -> dict:
    """The config of a set whose annotations have absolute file names."""
    metainfo = {**(config.get('metainfo') or {}), 'classes': tuple(classes)}
    return {
        **config,
        'type': 'mmdet.CocoDataset',
        'metainfo': metainfo,
        'data_root': '',
        'data_prefix': dict(img=''),
    }


def _given(path: Path, sets: list[_TrainingSet], validation: dict, out: Path) -> _Split:
    """Uses a file of images that are held out already."""
    path = path.absolute()
    coco = read_coco(path)
    check_classes(coco, sets[0].classes, None, path)
    folders = [each.folder for each in sets]
    prefix = (validation.get('data_prefix') or {}).get('img')
    if prefix is not None:
        folders.append(os.path.abspath(joined(validation, prefix)))
        own = os.path.abspath(joined(validation, validation.get('ann_file') or ''))
        if os.path.realpath(own) == os.path.realpath(path):
            folders.reverse()  # names may be those of training images, too
    places = [
        next((f for f in folders if os.path.isfile(os.path.join(f, name))), None)
        for name in (image['file_name'] for image in coco['images'])
    ]
    missing = [i['file_name'] for i, p in zip(coco['images'], places) if p is None]
    if missing:
        raise DataError(
            f"The images of '{path}' must lie with those to train or validate on, but "
            f"{len(missing)} of {len(places)}, for example '{missing[0]}', are in none "
            f'of {list(dict.fromkeys(folders))}. Copy or link them there.'
        )
    named = [
        dict(image, file_name=os.path.join(place, image['file_name']))
        for image, place in zip(coco['images'], places)
    ]
    for each in sets:
        check_disjoint(
            each.coco, dict(images=named), (each.ann_file, path), (each.folder, '')
        )
    files = {}
    if len(set(places)) == 1:
        scored = {**sets[0].of(path), 'data_prefix': dict(img=places[0])}
    else:
        coco, path = {**coco, 'images': named}, out / 'archval.json'
        files = {path: coco}
        scored = _of_absolute_names(sets[0].of(path), sets[0].classes)
    archtrain, trained = [e.coco for e in sets], [e.config for e in sets]
    return _Split(archtrain, trained, coco, scored, files)
