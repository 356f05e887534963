"""The data of a search: a detector's training set, split, whatever it is wrapped in."""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from mmengine.config import Config
from mmengine.fileio import get_local_path

from mmcr.data.checks import check_classes, check_disjoint
from mmcr.data.coco import DataError, forget, read_coco
from mmcr.data.objects import check_boxes, check_masks, count_boxes
from mmcr.data.sets import (
    CocoSet,
    as_read,
    class_names,
    dataset_class,
    evaluators,
    image_folder,
    image_prefix,
    inner_sets,
    joined,
    type_name,
)
from mmcr.data.split import (
    check_archval,
    check_once,
    split_images,
    subset,
    write_annotations,
)

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
        train_dataloader: The user's, with archtrain inside of its wrappers.
        archval_dataloader: The user's validation, with archval's images.
        calibration_dataloader: As `archval_dataloader`, with archtrain's images, not
            wrapped, to re-estimate batch norms.
        evaluator: Of archval: boxes, and masks where the user's evaluator has them.
        files: The annotation files that belong to it in the work dir.
        summary: The numbers of images in a line.
        archval_images: How many are to score on.
    """

    train_dataloader: dict
    archval_dataloader: dict
    calibration_dataloader: dict
    evaluator: dict
    files: tuple[Path, ...]
    summary: str
    archval_images: int


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
        archval: How many training images to hold out, of several sets in proportion
            to their images; or a COCO file of images that are held out already, in
            the folder of the training or of the validation images: then the training
            sets are used whole. ``None``: a tenth of the training images, at least
            50 (or half of them where they are fewer than 100) and at most 5,000.
        folder: The work dir.

    Raises:
        DataError: A set is not of COCO's form, or its annotations cannot be used; an
            image is in two sets; nothing would be left to train or to score on; or
            there is no validation loader to take the form from.
    """
    settings = cfg.to_dict()
    train = settings.get(TRAIN) or {}
    sets = [_Set.read(leaf) for leaf in inner_sets(train.get('dataset'))]
    if not sets:
        raise DataError(
            f'A search needs training images, but {TRAIN}.dataset is '
            f'{train.get("dataset")}. Name a COCO set there.'
        )
    out = Path(folder).resolve() / 'annotations'
    _check_sets(sets, out)
    template, validation = _validation(settings)
    metric = _metric(settings)
    total = sum(len(each.coco['images']) for each in sets)
    said = f'{total:,} images in {len(sets)} set{"s" * (len(sets) > 1)}'

    if isinstance(archval, str) and archval.isdigit():
        archval = int(archval)
    if isinstance(archval, (str, Path)):
        trained = sets
        scored, new = _given(Path(archval), sets, template, out)
        held = len(scored.coco['images'])
        said += f' to train on, {held:,} of {archval} to score on'
    else:
        if archval is None:
            archval = min(5000, max(total // 10, min(50, total // 2)))
        trained, scored = _drawn(sets, archval, out, seed)
        new = [*trained, scored]
        said += f': {total - archval:,} to train on, {archval:,} to score on '
        said += f'(seed {seed})'

    _check_annotations(trained, scored, masks='segm' in metric['metric'])
    for each in new:
        write_annotations(Path(each.ann_file), each.coco)
    forget()
    configs = [each.config for each in trained]
    pipeline = dict(pipeline=validation['pipeline'])
    calibration = [{**each, **pipeline} for each in configs]
    if len(calibration) > 1:
        calibration = [dict(type='mmdet.ConcatDataset', datasets=calibration)]
    held_out = {**scored.config, **pipeline, 'test_mode': True}
    held_out.pop('filter_cfg', None)
    return SearchData(
        train_dataloader={
            **train,
            'dataset': _replaced(train['dataset'], iter(configs)),
        },
        archval_dataloader={**template, 'dataset': held_out},
        calibration_dataloader={**template, 'dataset': calibration[0]},
        evaluator=dict(
            type='mmcr.UnroundedCocoMetric', ann_file=scored.ann_file, **metric
        ),
        files=tuple(Path(each.ann_file) for each in new),
        summary=said,
        archval_images=len(scored.images),
    )


def scale_lr(cfg: Config, world_size: int) -> tuple[float, str] | None:
    """By how much the learning rate is off for so many processes.

    An update has the images of all batches that it accumulates, unlike in mmengine's
    own scaling, which a config that enables it has been tuned with.

    Returns:
        The factor, a sentence on it; ``None`` where the rate is right as it is, or the
        config does not tell the batch size that it is for.
    """
    known = cfg.get('auto_scale_lr') or {}
    base = known.get('base_batch_size')
    batch_size = (cfg.get(TRAIN) or {}).get('batch_size')
    if not base or not batch_size:
        return None
    batches = 1 if known.get('enable') else accumulated(cfg)
    images = batch_size * world_size * batches
    if images == base:
        return None
    factor = images / base
    each = f'{batch_size} per process'
    if batches > 1:
        each = f'{batches} batches of {each}'
    return factor, (
        f'The learning rate is for {base} images per update, but an update has '
        f'{images} ({each}): it is multiplied by {factor:.4g}.'
    )


def accumulated(cfg: Config) -> int:
    """Batches of one update of the weights."""
    return (cfg.get('optim_wrapper') or {}).get('accumulative_counts') or 1


@dataclass(frozen=True)
class _Set(CocoSet):
    """A COCO set, of the images that it uses, with its config of absolute paths."""

    config: dict

    @classmethod
    def read(cls, leaf: dict) -> '_Set':
        """Reads the annotations of a set of the training loader."""
        from mmdet.registry import DATASETS

        _check_type(leaf)
        options = leaf.get('backend_args') or {}
        # elsewhere than on a disk, paths mean what their backend makes of them
        remote = options.get('backend', 'local') != 'local'
        path = joined(leaf, leaf.get('ann_file') or '')

        def place(path: str) -> str:
            return path if remote or '://' in path else os.path.abspath(path)

        image_folder(leaf, TRAIN)
        prefixes = {
            key: place(joined(leaf, prefix))
            for key, prefix in leaf['data_prefix'].items()
        }
        leaf = {**leaf, 'ann_file': place(path), 'data_prefix': prefixes}
        classes = list(class_names(leaf))
        metainfo = leaf.get('metainfo') or {}
        if isinstance(metainfo.get('classes'), str):  # a file, by a relative path
            leaf['metainfo'] = {**metainfo, 'classes': tuple(classes)}
        with get_local_path(leaf['ann_file'], backend_args=options or None) as local:
            coco = as_read(leaf, read_coco(local))
        if leaf.get('indices') is not None:  # of what mmdet leaves of the images
            built = DATASETS.build({**leaf, 'pipeline': [], 'lazy_init': False})
            used = {built.get_data_info(i)['img_id'] for i in range(len(built))}
            coco = subset(coco, used)
        return cls(leaf['ann_file'], prefixes['img'], classes, coco, leaf)

    def of(self, path: Path, coco: dict, folder: str | None = None) -> '_Set':
        """The set with all annotations of a file on disk.

        Args:
            folder: Another one of images; '' where their names are absolute.
        """
        config = dict(self.config, ann_file=str(path))
        for option in ('indices', 'backend_args'):
            config.pop(option, None)
        if folder is not None:
            config['data_prefix'] = dict(img=folder)
        if folder == '':
            metainfo = {**(config.get('metainfo') or {}), 'classes': (*self.classes,)}
            config.update(type='mmdet.CocoDataset', metainfo=metainfo, data_root='')
        folder = config['data_prefix']['img']
        return _Set(str(path), folder, self.classes, coco, config)


def _check_annotations(trained: list[_Set], scored: _Set, masks: bool) -> None:
    """Raises `DataError` unless there are objects to train on and to score on."""
    for use, sets in (('train', trained), ('score', [scored])):
        boxes = (count_boxes(each.coco, each.classes) for each in sets)
        owner = 'the images for it'
        check_boxes(sum(boxes, Counter()), use, owner, sets[0].classes)
    if masks:
        wanting = 'val_evaluator (segm)'
        check_masks(scored.coco, scored.classes, 'those to score on', wanting, True)


def _replaced(dataset: dict, leaves: Iterator[dict]) -> dict:
    """The data set with others in the place of the inner ones, in their order."""
    if inner := dataset.get('datasets'):
        return {**dataset, 'datasets': [_replaced(each, leaves) for each in inner]}
    if inner := dataset.get('dataset'):
        return {**dataset, 'dataset': _replaced(inner, leaves)}
    return next(leaves)


def _check_type(leaf: dict) -> None:
    import mmdet
    from mmdet.datasets import CocoDataset, CocoPanopticDataset, LVISV05Dataset

    cls, name = dataset_class(leaf), type_name(leaf.get('type'))
    if not isinstance(cls, type):
        raise DataError(
            f'The type of every data set must be registered, but {TRAIN} has '
            f'{leaf.get("type")!r}. Correct it, or import its module by custom_imports.'
        )
    if issubclass(cls, LVISV05Dataset):  # LVISV1Dataset is one, too
        raise DataError(
            f"Architectures are compared by COCO's AP, which LVIS cannot be scored "
            f'with (of each image it annotates a part of the classes), but {TRAIN} '
            f'has {name}, a set of LVIS. Search on one that is annotated completely.'
        )
    if not issubclass(cls, CocoDataset) or issubclass(cls, CocoPanopticDataset):
        tools = Path(mmdet.__file__).parent / '.mim/tools/dataset_converters'
        convert = [
            f', or convert the original data by: python {tools}/{command} (it knows '
            f'their classes alone)'
            for start, command in CONVERTERS.items()
            if name.startswith(start)
        ]
        raise DataError(
            f'Training annotations must be of the form of COCO detection (JSON), but '
            f'{TRAIN} has a {name}. Export them as COCO from the program that they '
            f'were annotated with{"".join(convert)}. Then use CocoDataset with '
            f'metainfo=dict(classes=...).'
        )


def _check_sets(sets: list[_Set], out: Path) -> None:
    owner: dict[str, str] = {}
    for each in sets:
        if Path(each.ann_file).resolve().parent == out:
            raise DataError(
                f"Nothing is written beside the data, but '{each.ann_file}' is in "
                f"'{out}', where the split would go. Choose another work dir."
            )
        check_classes(each)
        if each.classes != sets[0].classes:
            raise DataError(
                f'All sets of {TRAIN} must have the same classes, but they are '
                f"{sets[0].classes} with '{sets[0].ann_file}' and {each.classes} with "
                f"'{each.ann_file}'. Set metainfo=dict(classes=...) alike."
            )
        images = each.images
        shared = sorted(images.keys() & owner)
        if shared:
            raise DataError(
                f'No image may be in two sets of {TRAIN}, for one that is held out of '
                f'one would be trained on in the other, but {len(shared)} are in '
                f"'{owner[shared[0]]}' and in '{each.ann_file}', for example "
                f"'{shared[0]}'. List each once; RepeatDataset repeats a set."
            )
        owner.update(dict.fromkeys(images, each.ann_file))


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
    metrics = evaluators(cfg, 'val_dataloader') or evaluators(cfg, 'test_dataloader')
    masks = any('segm' in (each.get('metric') or ()) for each in metrics)
    chosen = dict(metric=['bbox', 'segm'] if masks else 'bbox')
    if any(each.get('sort_categories') for each in metrics):  # for Objects365
        chosen['sort_categories'] = True
    return chosen


def _drawn(
    sets: list[_Set], archval: int, out: Path, seed: int
) -> tuple[list[_Set], _Set]:
    """Holds out training images: the sets without them, and the set of them."""
    sizes = [len(each.coco['images']) for each in sets]
    several = len(sets) > 1
    owner = TRAIN if several else f"'{sets[0].ann_file}'"
    check_archval(archval, sum(sizes), owner, len(sets))
    trained, held = [], []
    for number, (each, share) in enumerate(zip(sets, _shares(sizes, archval)), 1):
        check_once(each.paths, each.ann_file)
        rest, chosen = split_images(each.coco, share, seed)
        path = out / f'archtrain{f"_{number}" if several else ""}.json'
        trained.append(each.of(path, rest))
        held.append(replace(each, coco=chosen))
    path = out / 'archval.json'
    if several:
        return trained, sets[0].of(path, _merged(held), folder='')
    return trained, sets[0].of(path, held[0].coco)


def _shares(sizes: list[int], total: int) -> list[int]:
    """Numbers in proportion to the sizes, by largest remainders, each less than it."""
    exact = [size * total / sum(sizes) for size in sizes]
    shares = [min(int(share), size - 1) for share, size in zip(exact, sizes)]
    while sum(shares) < total:
        open_sets = [i for i, size in enumerate(sizes) if shares[i] < size - 1]
        shares[max(open_sets, key=lambda i: exact[i] - shares[i])] += 1
    return shares


def _merged(parts: list[_Set]) -> dict:
    """One content of several, of their common classes alone, with absolute names."""
    classes = parts[0].classes
    images, annotations = [], []
    for part in parts:
        ids = {}
        for image in part.coco['images']:
            ids[image['id']] = len(images) + 1
            path = os.path.join(part.folder, image['file_name'])
            images.append(dict(image, id=len(images) + 1, file_name=path))
        names = {each['id']: each['name'] for each in part.coco['categories']}
        for each in part.coco['annotations']:
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


def _given(
    path: Path, sets: list[_Set], validation: dict, out: Path
) -> tuple[_Set, list[_Set]]:
    """Images that a file holds out already: their set, and what is new of it."""
    path = path.absolute()
    coco = read_coco(path)
    check_classes(CocoSet(str(path), '', sets[0].classes, coco))
    folders = [(each.ann_file, each.folder) for each in sets]
    for leaf in inner_sets(validation['dataset']):
        prefix = image_prefix(leaf, 'val_dataloader')
        if prefix is not None:
            own = joined(leaf, leaf.get('ann_file') or '')
            folders.append((own, os.path.abspath(joined(leaf, prefix))))
    places = _places(path, [image['file_name'] for image in coco['images']], folders)
    images = [
        dict(image, file_name=os.path.join(place, image['file_name']))
        for image, place in zip(coco['images'], places)
    ]
    named = CocoSet(str(path), '', sets[0].classes, {**coco, 'images': images})
    for each in sets:
        check_disjoint(each, named)
    if len(set(places)) == 1:
        return sets[0].of(path, coco, folder=places[0]), []
    scored = sets[0].of(out / 'archval.json', named.coco, folder='')
    return scored, [scored]


def _places(path: Path, names: list[str], folders: list[tuple[str, str]]) -> list[str]:
    """The folders of a file's images, by their names.

    Args:
        folders: Where they may lie, each behind the annotation file of its images.

    Raises:
        DataError: Some are in none of them, or in several, which are not the same.
    """
    real = os.path.realpath(path)
    own = [folder for file, folder in folders if os.path.realpath(file) == real]
    # elsewhere may be other images of the same names
    known = list(dict.fromkeys(own or [folder for _, folder in folders]))
    found = []  # of each name, the folders by the files in them
    for name in names:
        files = ((os.path.join(folder, name), folder) for folder in reversed(known))
        found.append({os.path.realpath(f): at for f, at in files if os.path.isfile(f)})
    missing = [name for name, places in zip(names, found) if not places]
    if missing:
        raise DataError(
            f"The images of '{path}' must lie with those to train or validate on, but "
            f"{len(missing)} of {len(names)}, for example '{missing[0]}', are in none "
            f'of {known}. Copy or link them there.'
        )
    double = [(name, places) for name, places in zip(names, found) if len(places) > 1]
    if double:
        name, places = double[0]
        raise DataError(
            f"The images of '{path}' must be told by their names, but of {len(names)} "
            f"{len(double)}, for example '{name}', are other files in each of "
            f'{[*places.values()][::-1]}. Write absolute paths as file_name, or rename '
            f'the images in one folder.'
        )
    return [next(iter(places.values())) for places in found]
