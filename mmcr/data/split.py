"""Split a training set into archtrain and archval, as CR-NAS does.

A supernet is trained on archtrain and its architectures are compared on
archval, so that the search never sees the test data.
"""

import json
import os
import random
from collections import Counter
from collections.abc import Container, Iterable
from pathlib import Path

from mmcr.checks import is_integer
from mmcr.data.coco import DataError, read_coco
from mmcr.files import write_bytes


def split_coco(
    ann_file: str | Path, archval: int, out_dir: str | Path, seed: int = 0
) -> tuple[Path, Path]:
    """Write `archtrain.json` and `archval.json`, whole images to either.

    Which images go to archval follows from their ids and the seed, not from
    their order in the file. All else in the file is kept; equal input gives
    equal bytes, and a file that has them already is not touched. One that has
    others is not replaced, since what was trained may rest on it.

    Args:
        ann_file: Any COCO annotation file; COCO's instances_train2017.json
            with an archval of 5,000 for the split of the paper.
        archval: Number of images to hold out.
        out_dir: Folder of the two files, made where missing.

    Returns:
        The two files, archtrain first.

    Raises:
        DataError: No COCO file; an image listed twice; an archval that is
            empty or leaves nothing to train on; or an output that would
            replace the input or another split.
    """
    coco = read_coco(ann_file)
    check_archval(archval, len(coco['images']), f"'{ann_file}'")
    files = tuple(Path(out_dir, f'{part}.json') for part in ('archtrain', 'archval'))
    names = (image['file_name'] for image in coco['images'])
    check_once(map(os.path.normpath, names), ann_file)
    parts = split_images(coco, archval, seed)
    if Path(ann_file).resolve() in [path.resolve() for path in files]:
        raise DataError(
            f"The split would replace '{ann_file}', the file "
            'that is split. Choose another output folder.'
        )
    for path, part in zip(files, parts):
        if path.is_file() and path.read_bytes() != _encoded(part):
            raise DataError(
                f"The split would replace '{path}', which exists with another content "
                'that trainings may rest on. Choose another output folder, or move '
                'that file away.'
            )
    for path, part in zip(files, parts):
        write_annotations(path, part)
    return files


def check_archval(archval: int, num_images: int, owner: str, sets: int = 1) -> None:
    """Check that of the images of `sets` data sets so many can be held out.

    Raises:
        DataError: None would be held out, or none of a set left.
    """
    most = num_images - sets
    if not is_integer(archval, at_least=1) or archval > most:
        choose = f'Choose a number from 1 to {most}' if most > 0 else 'Add images'
        raise DataError(
            'archval must hold at least 1 image and leave 1 for archtrain'
            f'{" in every set" if sets > 1 else ""}, but got archval={archval!r} and '
            f'{owner} holds {num_images} images. {choose}.'
        )


def check_once(paths: Iterable[str], ann_file: str | Path) -> None:
    """Check that a file lists each of its images once, whatever the spelling.

    Raises:
        DataError: It does not.
    """
    double = [path for path, count in Counter(paths).items() if count > 1]
    if double:
        raise DataError(
            f"'{ann_file}' lists {len(double)} images more than once under different "
            f"ids, for example '{double[0]}': they could land in both parts. Merge "
            f'the entries of one image.'
        )


def split_images(coco: dict, archval: int, seed: int) -> tuple[dict, dict]:
    """Return archtrain and archval, of so many images, of a file's content."""
    images = sorted(coco['images'], key=_by_id)
    held = {image['id'] for image in random.Random(seed).sample(images, archval)}
    trained = {image['id'] for image in images} - held
    return subset(coco, trained), subset(coco, held)


def subset(coco: dict, image_ids: Container) -> dict:
    """Return the content with these images alone, all entries ordered by id."""
    images = [image for image in coco['images'] if image['id'] in image_ids]
    annotations = [a for a in coco['annotations'] if a['image_id'] in image_ids]
    return {
        **coco,
        'images': sorted(images, key=_by_id),
        'annotations': sorted(annotations, key=_by_id),
    }


def write_annotations(path: Path, coco: dict) -> None:
    """Write an annotation file, unless it is there with the same bytes."""
    data = _encoded(coco)
    if not (path.is_file() and path.read_bytes() == data):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, data)


def _encoded(coco: dict) -> bytes:
    return json.dumps(coco, separators=(',', ':')).encode()


def _by_id(entry: dict) -> tuple:
    # Some data sets use text for ids, some both.
    return isinstance(entry['id'], str), entry['id']
