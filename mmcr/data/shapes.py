"""The embedded data set: drawn scenes in COCO format, for demos and tests.

Two to seven objects of the six classes of `mmcr.data.figures` on a textured
background. Sizes are log-uniform from 8 pixels to most of the image, so that
every level of a feature pyramid has work; later, smaller objects partly hide
earlier ones. Everything of an image follows from (seed, split, index): equal
arguments give equal bytes, and a longer data set begins with the shorter one.
"""

import json
import zlib
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from mmcr.checks import LARGEST_SIDE, check_integer
from mmcr.data.coco import DataError
from mmcr.data.figures import (
    CLASSES,
    KINDS,
    MIN_PLATE,
    PLAIN,
    RELATIONAL,
    TEXTURED,
    Figure,
    draw_figure,
)
from mmcr.files import write_json

VERSION = 1  # of the drawing rules: raise it when equal arguments draw anew
MIN_SIDE = 64
MIN_SIZE, MAX_SHARE = 8, 0.95  # pixels; share of the image's shorter side
PLATE_SHARE = 0.3
MIN_VISIBLE, MIN_INSIDE = 0.5, 0.7  # shares of an object's pixels
TRIES = 12


def write_shapes(
    out_dir: str | Path,
    num_images: int,
    image_size: tuple[int, int] = (256, 256),
    seed: int = 0,
    split: str = 'train',
    object_size: tuple[int, int] | None = None,
) -> Path:
    """Write one split of the data set, unless it is already there.

    `out_dir/<split>.json` is written after the images in `out_dir/<split>/`:
    where it exists, the split is complete. A split of other arguments that
    this function wrote earlier is replaced.

    Args:
        out_dir: Folder of all splits, made where missing.
        image_size: Width and height in pixels, at least 64 each.
        seed: Non-negative. Splits of one seed differ from each other.
        object_size: Least and largest side of an object in pixels, before others hide
            parts of it; ``None``: 8, and 0.95 of the image's shorter side.

    Returns:
        The annotation file.

    Raises:
        DataError: An argument out of range, or a foreign `<split>.json`.
    """
    _check_arguments(num_images, image_size, seed, split, object_size)
    annotation_file, folder = Path(out_dir, f'{split}.json'), Path(out_dir, split)
    recipe = dict(
        version=VERSION,
        num_images=num_images,
        image_size=list(image_size),
        seed=seed,
        split=split,
    )
    if object_size is not None:  # so that sets of before are what they were
        recipe['object_size'] = list(object_size)
    if _is_current(annotation_file, folder, recipe):
        return annotation_file
    folder.mkdir(parents=True, exist_ok=True)
    images, annotations = _draw_images(folder, recipe)
    content = dict(
        info=dict(description='shapes drawn by mmcr', recipe=recipe),
        licenses=[],
        categories=[
            dict(id=i, name=name, supercategory=KINDS[name])
            for i, name in enumerate(CLASSES, start=1)
        ],
        images=images,
        annotations=annotations,
    )
    write_json(annotation_file, content)
    return annotation_file


def _check_arguments(num_images, image_size, seed, split, object_size) -> None:
    check_integer('The number of images', num_images, error=DataError)
    check_integer('The seed', seed, at_least=0, error=DataError)
    if len(image_size) != 2 or not (
        MIN_SIDE <= min(image_size) <= max(image_size) <= LARGEST_SIDE
    ):
        raise DataError(
            f'The image size must be a width and a height, at most {LARGEST_SIDE} and '
            f'at least {MIN_SIDE} pixels, but got {tuple(image_size)}.'
        )
    most = MAX_SHARE * min(image_size)
    if object_size is not None and not (
        len(object_size) == 2 and MIN_SIZE <= object_size[0] <= object_size[1] <= most
    ):
        raise DataError(
            f'The object size must be a least and a largest side in pixels, from '
            f'{MIN_SIZE} to {most:.0f} in images of {tuple(image_size)}, but got '
            f'{tuple(object_size)}.'
        )
    if not split.isidentifier():
        raise DataError(
            f"The split names files: it must be a plain word like 'train', but got "
            f'{split!r}.'
        )


def _is_current(annotation_file: Path, folder: Path, recipe: dict) -> bool:
    """Whether the split is there; one of another recipe is removed."""
    if not annotation_file.exists():
        return False
    try:
        old = json.loads(annotation_file.read_bytes())
        old['info']['recipe']['version']
        names = {image['file_name'] for image in old['images']}
    except (ValueError, KeyError, TypeError):
        raise DataError(
            f"'{annotation_file}' was not written by the shapes data set and is not "
            'overwritten. Choose another folder.'
        ) from None
    present = {path.name for path in folder.glob('*.png')}
    if old['info']['recipe'] == recipe and names <= present:
        return True
    annotation_file.unlink()
    for name in names & present:
        (folder / name).unlink()
    return False


def _draw_images(folder: Path, recipe: dict) -> tuple[list[dict], list[dict]]:
    """Write the images; returns their COCO entries and the annotations."""
    split, (width, height) = recipe['split'], recipe['image_size']
    images, annotations = [], []
    for index in range(recipe['num_images']):
        # Of each image its own, so that the length of the set does not matter.
        stream = [recipe['seed'], zlib.crc32(split.encode()), index]
        rng = np.random.default_rng(stream)
        picture, objects = draw_scene(rng, (width, height), recipe.get('object_size'))
        name = f'{split}_{index:06d}.png'
        # plainly: the annotations, written last, say that all are there
        (folder / name).write_bytes(cv2.imencode('.png', picture)[1])
        images.append(dict(id=index + 1, file_name=name, width=width, height=height))
        for entry in objects:
            number = len(annotations) + 1
            annotations.append(dict(id=number, image_id=index + 1, **entry))
    return images, annotations


def draw_scene(
    rng: np.random.Generator,
    image_size: tuple[int, int],
    object_size: Sequence[int] | None = None,
) -> tuple[np.ndarray, list[dict]]:
    """Draw one image with its objects; sizes as of `write_shapes`.

    Returns:
        The picture, uint8 of shape (height, width, 3) in BGR, and per object
        the COCO fields `category_id`, `bbox`, `area`, `iscrowd` and
        `segmentation`, all of its visible part.
    """
    sizes = object_size or (MIN_SIZE, MAX_SHARE * min(image_size))
    # small objects leave room for two at once; a few large ones may not
    least, tries = 2, 0
    scene = _Scene(rng, *image_size, sizes)
    while len(scene.names) < least:
        tries += 1
        least = 2 if tries < TRIES or object_size is None else 1
        scene = _Scene(rng, *image_size, sizes)
    objects = []
    for number, name in enumerate(scene.names, start=1):
        visible = (scene.owner == number).astype(np.uint8)
        left, top, width, height = cv2.boundingRect(visible)
        window = visible[top : top + height, left : left + width]
        objects.append(
            dict(
                category_id=CLASSES.index(name) + 1,
                bbox=[left, top, width, height],
                area=int(window.sum()),
                iscrowd=0,
                segmentation=_polygons(window, left, top),
            )
        )
    return scene.picture, objects


class _Scene:
    """A picture in the making, painted larger objects first.

    An object that would hide too much of another, or a part on which
    another's class hangs, is moved, and left out if nothing helps: whatever
    is painted can be recognised and is annotated.

    Attributes:
        picture: uint8 of shape (height, width, 3).
        owner: The number of the object that each pixel shows, 0 for the
            background, shape (height, width).
        names: The class names of objects 1, 2, ...
    """

    def __init__(
        self, rng: np.random.Generator, width: int, height: int, sizes: Sequence[float]
    ):
        self.picture = _background(rng, width, height)
        self.owner = np.zeros((height, width), np.uint8)
        self.names = []
        self._guarded = np.zeros((height, width), bool)
        self._visible = np.array([width * height])  # pixels per owner
        self._least_visible = np.array([0])

        side = min(width, height)
        low, high = np.log(sizes)
        logs = rng.uniform(low, high, rng.integers(3, 8))
        for size in np.sort(np.exp(logs))[::-1]:
            # Large objects are a third of all: four of five of them relational,
            # the classes come out about even.
            large = size >= max(MIN_PLATE, PLATE_SHARE * side)
            relational = large and rng.random() < 0.8
            name = str(rng.choice(RELATIONAL if relational else PLAIN + TEXTURED))
            self._add(rng, name, draw_figure(rng, name, size))

    def _add(self, rng: np.random.Generator, name: str, fig: Figure) -> None:
        for _ in range(TRIES):
            there, part = self._windows(rng, *fig.mask.shape)
            mask = fig.mask[part]
            hidden = np.bincount(self.owner[there][mask], minlength=len(self._visible))
            left = self._visible - hidden
            if (
                mask.sum() >= MIN_INSIDE * fig.mask.sum()
                and fig.guarded[part].sum() == fig.guarded.sum()
                and not self._guarded[there][mask].any()
                and (left >= self._least_visible).all()
            ):
                break
        else:
            return
        self.names.append(name)
        self.owner[there][mask] = len(self.names)
        self._guarded[there] |= fig.guarded[part]
        self._visible = np.append(left, mask.sum())
        least = MIN_VISIBLE * fig.mask.sum()
        self._least_visible = np.append(self._least_visible, least)
        pixels = self.picture[there]
        # The colour (B, G, R) stands out and keeps away from black and white, where
        # tones would be clipped and the mean colour would tell the class.
        colours = rng.integers(60, 196, (8, 3))
        contrasts = np.abs(colours - pixels[mask].mean(axis=0)).sum(axis=1)
        colour = colours[contrasts.argmax()]
        pixels[mask] = np.clip(colour + fig.tone[part][mask][:, None], 0, 255)

    def _windows(self, rng: np.random.Generator, height: int, width: int) -> tuple:
        """A random place: its window in the picture and in the figure."""
        there, part = [], []
        for extent, room in zip((height, width), self.owner.shape):
            slack = extent // 4
            start = int(rng.integers(-slack, room - extent + slack + 1))
            low, high = max(start, 0), min(start + extent, room)
            there.append(slice(low, high))
            part.append(slice(low - start, high - start))
        return tuple(there), tuple(part)


def _background(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """Coloured noise of three scales, uint8 of shape (height, width, 3)."""
    picture = np.full((height, width, 3), rng.uniform(80, 176), np.float32)
    for cell, spread in ((64, 24), (16, 14), (4, 10)):
        grid = rng.normal(0, spread, (height // cell + 2, width // cell + 2))
        tint = rng.normal(1, 0.3, 3)
        noise = cv2.resize(grid.astype(np.float32), (width, height))
        picture += noise[:, :, None] * tint.astype(np.float32)
    return np.clip(picture, 0, 255).astype(np.uint8)


def _polygons(mask: np.ndarray, left: int, top: int) -> list[list[float]]:
    """Outlines of a mask whose corner lies at (left, top) of the image.

    A polygon has no holes: a part with a hole is cut in two through it.
    """
    # Contours run through centres of pixels; four times enlarged, they miss
    # the outer edges by an eighth of a pixel only.
    large = np.repeat(np.repeat(mask, 4, 0), 4, 1)
    mode = cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE
    contours, hierarchy = cv2.findContours(large, *mode)
    for contour, (*_, parent) in zip(contours, hierarchy[0]):
        if parent >= 0:
            x, _, width, _ = cv2.boundingRect(contour)
            cut = (x + width // 2) // 4
            halves = (mask[:, :cut], left, top), (mask[:, cut:], left + cut, top)
            return [polygon for half in halves for polygon in _polygons(*half)]
    polygons = []
    for contour in contours:
        points = cv2.approxPolyDP(contour, 1.2, closed=True)[:, 0]
        if len(points) >= 3:
            points = (points + 0.5) / 4 + (left, top)
            polygons.append(points.ravel().tolist())
    return polygons
