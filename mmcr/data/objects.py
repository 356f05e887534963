"""What becomes of a data set's boxes and masks."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from math import isnan

from mmcr.data.coco import DataError

USABLE, CROWD, NAN, OTHER = 'usable', 'crowd', 'NaN', 'of other classes'


def count_boxes(coco: Mapping, classes: Sequence[str]) -> Counter:
    """Number of boxes that are `USABLE`, and of the others by the reason.

    mmdet trains on no others; crowds it knows, and counts neither as found nor as
    missed.
    """
    return Counter(kind for _, kind in _kinds(coco, classes))


def _kinds(coco: Mapping, classes: Sequence[str]) -> Iterator[tuple[dict, str]]:
    known = {c['id'] for c in coco['categories'] if c['name'] in classes}
    sizes = {image['id']: (image['width'], image['height']) for image in coco['images']}
    for annotation in coco['annotations']:
        x, y, w, h = annotation['bbox']
        width, height = sizes[annotation['image_id']]
        if annotation['category_id'] not in known:
            kind = OTHER
        elif isnan(x + y + w + h):
            kind = NAN
        elif annotation.get('ignore'):
            kind = 'to ignore'
        elif annotation.get('iscrowd'):
            kind = CROWD
        elif w < 1 or h < 1:
            kind = 'below a pixel'
        elif annotation['area'] <= 0:
            kind = 'of no area'
        elif not (-w < x < width and -h < y < height):
            kind = 'outside of the image'
        else:
            kind = USABLE
        yield annotation, kind


def left_out(boxes: Counter) -> str:
    """The numbers of boxes that are of no use."""
    rest = (f'{n:,} {kind}' for kind, n in boxes.most_common() if kind != USABLE)
    return ', '.join(rest)


def check_boxes(boxes: Counter, use: str, owner: str, classes: Sequence[str]) -> None:
    """Raises `DataError` where none of the boxes is of use.

    Args:
        use: What for: train or score.
        owner: Whose boxes, for the message.
    """
    if not boxes[USABLE]:
        reasons = left_out(boxes)
        raise DataError(
            f'There must be boxes to {use} on, but of {boxes.total():,} annotations '
            f'of {owner} none is of use{f" ({reasons})" if reasons else ""}: of one of '
            f'the classes {list(classes)}, no crowd, in the image, and at least a '
            f'pixel wide, high and large. Correct the annotations, or choose other '
            f'images.'
        )


def check_masks(
    coco: Mapping, classes: Sequence[str], owner: str, use: str, scored: bool
) -> None:
    """Check that objects have masks that mmdet and pycocotools take.

    Args:
        owner: Of the annotations, for the message.
        use: What asks for masks, for the message.
        scored: Whether AP is computed of them, of small ones too, or a network is
            trained on them.

    Raises:
        DataError: Of an object of the classes, `segmentation` is neither polygons of
            three points at least nor an RLE of the image's size.
    """
    sizes = {image['id']: [image['height'], image['width']] for image in coco['images']}
    lacking = [
        annotation['id']
        for annotation, kind in _kinds(coco, classes)
        if (kind not in (OTHER, NAN) if scored else kind in (USABLE, CROWD))
        and not _is_mask(annotation.get('segmentation'), sizes[annotation['image_id']])
    ]
    if lacking:
        raise DataError(
            f'{use} wants masks: every annotation must have a segmentation, polygons '
            f"of 6 numbers and more or an RLE of the image's size, but "
            f'{len(lacking)} of {len(coco["annotations"])} of {owner} have none, for '
            f'example those of id {lacking[:3]}. Add them, or use boxes alone.'
        )


def _is_mask(value: object, size: list[int]) -> bool:
    if isinstance(value, dict):
        counts = value.get('counts')
        if value.get('size') != size or not counts:
            return False
        if isinstance(counts, str):
            return True
        return _numbers(counts, int) and sum(counts) == size[0] * size[1]
    return (
        isinstance(value, list)
        and bool(value)
        # of fewer numbers, pycocotools makes boxes
        and all(_numbers(part, int, float) and len(part) % 2 == 0 for part in value)
        and len(value[0]) >= 6
    )


def _numbers(values: object, *kinds: type) -> bool:
    return isinstance(values, list) and set(map(type, values)) <= set(kinds)
