"""Image files, looked at before anything is trained on them."""

import os
import random
import stat
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mmcr.data.coco import DataError

#: How many images of a data set are decoded unless the command line says so.
SAMPLE = 50


def image_count(text: str) -> int | None:
    """What ``--check-images`` takes: a number, ``none`` for 0, ``all`` for `None`."""
    count = None if text == 'all' else 0 if text == 'none' else int(text)
    if count is not None and count < 0:
        raise ValueError(text)
    return count


def check_files(paths: Sequence[str], owner: str, place: str) -> None:
    """Check that all images are files that are not empty and may be read.

    Args:
        owner: What names them.
        place: The data loader.

    Raises:
        DataError: Some are not.
    """
    with ThreadPoolExecutor(8) as threads:  # for disks that are far away
        parts = [paths[start::8] for start in range(8)]
        faults = sorted(fault for part in threads.map(_faults, parts) for fault in part)
    if not faults:
        return
    folder = os.path.dirname(faults[0][0])
    there = os.path.isdir(folder)
    hint = '' if there else f"The image folder '{folder}/' does not exist. "
    if '\\' in faults[0][0]:
        hint += 'Names have backslashes, write slashes. '
    raise DataError(
        f'All images of {owner} must be files with data_root/data_prefix.img before '
        f'their names, but {len(faults):,} of {len(paths):,} cannot be read: '
        f'{_some([f"{path!r} {fault}" for path, fault in faults])}. {hint}(Working '
        f"directory: '{os.getcwd()}'.) Correct data_root or data_prefix in {place}, "
        f'or the file names, or copy the images again.'
    )


def _faults(paths: Sequence[str]) -> list[tuple[str, str]]:
    found = []
    for path in paths:
        try:
            state = os.stat(path)
        except FileNotFoundError:
            fault = 'does not exist'
        except (OSError, ValueError) as error:
            fault = f'is no path ({getattr(error, "strerror", None) or error})'
        else:
            if not stat.S_ISREG(state.st_mode):
                fault = 'is no file'
            elif not state.st_size:
                fault = 'is empty (0 bytes)'
            elif not os.access(path, os.R_OK):
                fault = 'may not be read'
            else:
                continue
        found.append((_short(path), fault))
    return found


def decode_some(
    sizes: Mapping[str, tuple[int, int]],
    count: int | None,
    loads: Mapping | None,
    owner: str,
) -> str:
    """Decode images as a pipeline does and compare their sizes.

    mmcv turns images by their EXIF orientation, unless `color_type` of the pipeline
    says otherwise.

    Args:
        sizes: Height and width by path, as the annotations have them; (0, 0) where
            these do not say.
        count: How many, drawn with a fixed seed; `None` for all.
        loads: The pipeline's `LoadImageFromFile`; images that are read in another way
            are not decoded.
        owner: What names them.

    Returns:
        What was found, for people.

    Raises:
        DataError: An image cannot be decoded or is of another size.
    """
    if loads is None or count == 0:
        return 'none decoded'
    chosen = list(sizes)
    if count is not None and count < len(chosen):
        chosen = random.Random(0).sample(chosen, count)
    with ThreadPoolExecutor() as threads:
        decoded = list(threads.map(lambda path: _decoded(path, loads), chosen))
    lost = [path for path, size in zip(chosen, decoded) if size is None]
    if lost and not loads.get('ignore_empty'):
        raise DataError(
            f'mmcv must be able to decode the images of {owner}, but of '
            f'{len(chosen)} that were tried {len(lost)} are no images or damaged: '
            f'{_some([repr(_short(path)) for path in lost])}. Copy them again, or '
            f'remove them from the annotations.'
        )
    _check_sizes(dict(zip(chosen, decoded)), sizes, owner)
    rest = f', {len(lost)} of them no images and left out (ignore_empty)'
    return f'{len(chosen):,} decoded{rest if lost else ""}'


def _decoded(path: str, loads: Mapping) -> tuple[int, int] | None:
    """The height and width of an image; `None` where it is none, or damaged."""
    import cv2
    import mmcv

    flag, backend = loads.get('color_type', 'color'), loads.get('imdecode_backend')
    try:
        image = mmcv.imfrombytes(Path(path).read_bytes(), flag=flag, backend=backend)
    except (OSError, ValueError, cv2.error):  # of Pillow, TurboJPEG and OpenCV
        return None
    return None if image is None else image.shape[:2]


def _check_sizes(decoded: Mapping, sizes: Mapping, owner: str) -> None:
    wrong = [p for p, size in decoded.items() if size and (0, 0) != sizes[p] != size]
    if wrong:
        turned = all(decoded[path] == sizes[path][::-1] for path in wrong)
        listed = (
            f'{_short(path)!r} is {_size(decoded[path])}, not {_size(sizes[path])}'
            for path in wrong
        )
        raise DataError(
            f'Images must have the width and height that {owner} gives, but of '
            f'{len(decoded)} decoded ones {len(wrong)} have not: {_some([*listed])}. '
            + 'mmcv turns images by their EXIF orientation. '
            * turned
            + 'Correct width and height, and the boxes where they are for images of '
            'that size; or take the images that were annotated.'
        )


def _size(size: tuple[int, int]) -> str:
    return f'{size[1]}x{size[0]}'


def _some(texts: Sequence[str]) -> str:
    more = len(texts) - 3
    return ', '.join(texts[:3]) + (f' and {more:,} more' if more > 0 else '')


def _short(path: str) -> str:
    return path if len(path) <= 200 else f'{path[:197]}...'
