"""Split a training set into archtrain and archval, as CR-NAS does.

A supernet is trained on archtrain and its architectures are compared on
archval, so that the search never sees the test data.
"""

import random
from pathlib import Path

from mmcr.data.coco import DataError, read_coco
from mmcr.files import write_json


def split_coco(
    ann_file: str | Path, archval: int, out_dir: str | Path, seed: int = 0
) -> tuple[Path, Path]:
    """Write `archtrain.json` and `archval.json`, whole images to either.

    Which images go to archval follows from their ids and the seed, not from
    their order in the file. All else in the file is kept; equal input gives
    equal bytes.

    Args:
        ann_file: Any COCO annotation file; COCO's instances_train2017.json
            with an archval of 5,000 for the split of the paper.
        archval: Number of images to hold out.
        out_dir: Folder of the two files, made where missing.
        seed: Seed of the draw.

    Returns:
        The two files, archtrain first.

    Raises:
        DataError: No COCO file; an image listed twice; an archval that is
            empty or leaves nothing to train on; or an output that would
            replace the input.
    """
    coco = read_coco(ann_file)
    images = sorted(coco['images'], key=_by_id)
    _check_images(ann_file, images, archval)
    chosen = random.Random(seed).sample(range(len(images)), archval)
    held = {images[index]['id'] for index in chosen}
    annotations = sorted(coco['annotations'], key=_by_id)
    files = tuple(Path(out_dir, f'{part}.json') for part in ('archtrain', 'archval'))
    if Path(ann_file).resolve() in [path.resolve() for path in files]:
        raise DataError(
            f"The split would replace '{ann_file}', the file "
            'that is split. Choose another output folder.'
        )
    Path(out_dir).mkdir(parents=True, exist_ok=True)
    for path, inside in zip(files, (False, True)):
        write_json(
            path,
            {
                **coco,
                'images': [i for i in images if (i['id'] in held) == inside],
                'annotations': [
                    a for a in annotations if (a['image_id'] in held) == inside
                ],
            },
        )
    return files


def _check_images(ann_file: str | Path, images: list[dict], archval: int) -> None:
    if not 1 <= archval < len(images):
        raise DataError(
            'archval must hold at least 1 image and leave 1 for archtrain, '
            f"but got archval={archval} and '{ann_file}' holds {len(images)} "
            f'images. Choose a number from 1 to {len(images) - 1}.'
        )
    names = {image['file_name'] for image in images}
    if len(names) < len(images):
        raise DataError(
            f"'{ann_file}' lists {len(images) - len(names)} images more than "
            'once under different ids: they could land in both parts. Merge '
            'the entries of one file_name.'
        )


def _by_id(entry: dict) -> tuple:
    # Some data sets use text for ids, some both.
    return isinstance(entry['id'], str), entry['id']
