"""COCO annotation files, read with one clear message per fault."""

import json
import os
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from mmcr.errors import UserError

_FIELDS = {
    'images': {'id', 'file_name', 'width', 'height'},
    'categories': {'id', 'name'},
    'annotations': {'id', 'image_id', 'category_id', 'bbox', 'area'},
}


class DataError(UserError):
    """An annotation file or a data set of a config that cannot be used."""


def read_coco(path: str | Path, annotated: bool = True) -> dict:
    """Read a COCO annotation file and check that it is one.

    Boxes of no or one pixel, equal boxes and images without annotations are
    let through: mmdet copes with them.

    Args:
        path: The JSON file.
        annotated: Whether it must hold annotations; False for sets to be
            predicted on only, such as COCO's test-dev.

    Raises:
        DataError: The file is missing, empty, not JSON, not COCO, or
            contradicts itself.
    """
    content = _read_json(path)
    wanted = [key for key in _FIELDS if annotated or key != 'annotations']
    missing = [
        key for key in wanted if not isinstance(content, dict) or key not in content
    ]
    if missing:
        found = (
            sorted(content)
            if isinstance(content, dict)
            else 'a ' + type(content).__name__
        )
        raise DataError(
            f"'{path}' is not a COCO annotation file: it must hold the keys "
            f'{wanted}, but {missing} are missing (found: {found}). Convert '
            'it to COCO format.'
        )
    for section in wanted:
        _check_section(path, section, content[section])
    if annotated:
        _check_references(path, content)
    return content


def _read_json(path: str | Path) -> object:
    try:
        data = Path(path).read_bytes()
    except FileNotFoundError:
        raise DataError(
            f"Annotation file '{path}' does not exist (working directory: "
            f"'{os.getcwd()}'). Correct data_root or ann_file, or make the "
            'file.'
        ) from None
    except OSError as error:
        raise DataError(
            f"Annotation file '{path}' cannot be read: "
            f'{error.strerror}. Name a readable file.'
        ) from None
    if not data.strip():
        raise DataError(f"Annotation file '{path}' is empty. Make or copy it again.")
    if data.startswith((BOM_UTF8, BOM_UTF16_LE, BOM_UTF16_BE)):
        raise DataError(
            f"Annotation file '{path}' begins with a byte order mark, which mmdet "
            'cannot read. Save it as UTF-8 without BOM.'
        )
    try:
        return json.loads(data.decode())
    except ValueError as error:
        raise DataError(
            f"Annotation file '{path}' is not JSON ({error}). Name a COCO "
            'JSON file, or copy it again if it was cut short.'
        ) from None


def _check_section(path: str | Path, section: str, entries: object) -> None:
    if not isinstance(entries, list):
        raise DataError(
            f"'{path}' is not a COCO annotation file: {section} "
            f'must be a list, but is a {type(entries).__name__}.'
        )
    if not entries and section != 'annotations':
        raise DataError(
            f"'{path}' holds no {section}: it must have at least "
            'one. Make or copy it again.'
        )
    fields = _FIELDS[section]
    for index, entry in enumerate(entries):
        if not isinstance(entry, dict) or not fields <= entry.keys():
            lacks = fields.difference(entry) if isinstance(entry, dict) else fields
            raise DataError(
                f"'{path}': every entry of {section} must have "
                f'{sorted(fields)}, but entry {index} lacks '
                f'{sorted(lacks)}.'
            )
    _check_unique(path, section, 'id', entries)
    if section == 'categories':
        _check_unique(path, section, 'name', entries)


def _check_unique(
    path: str | Path, section: str, field: str, entries: list[dict]
) -> None:
    values = [entry[field] for entry in entries]
    if len(set(values)) < len(values):
        double = [v for v, count in Counter(values).items() if count > 1]
        raise DataError(
            f"'{path}': {field} must be unique in {section}, but {len(double)}"
            f' occur more than once, for example {double[:3]}. Renumber or '
            'remove them.'
        )


def _check_references(path: str | Path, coco: dict) -> None:
    for field, section in (('image_id', 'images'), ('category_id', 'categories')):
        known = {entry['id'] for entry in coco[section]}
        lost = [a for a in coco['annotations'] if a[field] not in known]
        if lost:
            raise DataError(
                f"'{path}': every {field} must be the id of one of its "
                f'{section}, but {len(lost)} annotations have none, for '
                f'example annotation {lost[0]["id"]} with {field} '
                f'{lost[0][field]!r}. Remove them or add the {section}.'
            )
    for entry in coco['annotations']:
        box, area = entry['bbox'], entry['area']
        four = isinstance(box, list) and len(box) == 4
        if not four or not all(isinstance(v, (int, float)) for v in (*box, area)):
            raise DataError(
                f"'{path}': bbox must be [x, y, width, height] and area a number, but "
                f'annotation {entry["id"]} has {box!r} and {area!r}. Correct or '
                'remove it.'
            )


def count_usable(coco: Mapping, classes: Sequence[str]) -> int:
    """Number of boxes that count: of the classes, no crowd, a pixel wide and high.

    mmdet trains on no others, and evaluates no crowd.
    """
    known = {c['id'] for c in coco['categories'] if c['name'] in classes}
    return sum(
        annotation['category_id'] in known
        and not annotation.get('iscrowd')
        and not annotation.get('ignore')
        and annotation['area'] > 0
        and min(annotation['bbox'][2:]) >= 1
        for annotation in coco['annotations']
    )
