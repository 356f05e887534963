"""COCO annotation files, read with one clear message per fault."""

import json
import os
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
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
        annotated: Whether it must hold annotations; False for sets to be
            predicted on only, such as COCO's test-dev.

    Raises:
        DataError: The file is missing, empty, not JSON, not COCO, begins with
            a byte order mark, or contradicts itself.
    """
    content = _read_json(path)
    for fault in _faults(content, annotated):
        raise DataError(f"Annotation file '{path}' {fault}")
    return content


def _read_json(path: str | Path) -> object:
    try:
        data = Path(path).read_bytes()
        if data.startswith((BOM_UTF8, BOM_UTF16_LE, BOM_UTF16_BE)):
            fault = (
                'begins with a byte order mark, which mmdet cannot read. Save it '
                'as UTF-8 without BOM.'
            )
        elif not data.strip():
            fault = 'is empty. Make or copy it again.'
        else:
            return json.loads(data.decode())
    except FileNotFoundError:
        fault = (
            f"does not exist (working directory: '{os.getcwd()}'). Correct "
            'data_root or ann_file, or make the file.'
        )
    except OSError as error:
        fault = f'cannot be read: {error.strerror}. Name a readable file.'
    except (ValueError, RecursionError) as error:
        fault = (
            f'is not JSON ({error}). Name a COCO JSON file, or copy it again '
            'if it was cut short.'
        )
    raise DataError(f"Annotation file '{path}' {fault}")


def _faults(content: object, annotated: bool) -> Iterator[str]:
    """What is wrong, worst first; each presumes that the ones before it are not."""
    wanted = [key for key in _FIELDS if annotated or key != 'annotations']
    known = content if isinstance(content, dict) else ()
    missing = [key for key in wanted if key not in known]
    if missing:
        found = sorted(known) if known else f'a {type(content).__name__}'
        yield (
            f'is not COCO: it must hold the keys {wanted}, but {missing} are '
            f'missing (found: {found}). Convert it to COCO format.'
        )
    for section in wanted:
        yield from _section_faults(section, content[section])
    if annotated:
        yield from _reference_faults(content)


def _section_faults(section: str, entries: object) -> Iterator[str]:
    if not isinstance(entries, list):
        kind = type(entries).__name__
        yield f'is not COCO: {section} must be a list, but is a {kind}.'
    if not entries and section != 'annotations':
        yield f'holds no {section}: it must have at least one. Make or copy it again.'
    fields = _FIELDS[section]
    for index, entry in enumerate(entries):
        lacks = fields.difference(entry if isinstance(entry, dict) else ())
        if lacks:
            yield (
                f'is not COCO: every entry of {section} must have {sorted(fields)}, '
                f'but entry {index} lacks {sorted(lacks)}.'
            )
    for field in ('id', 'name') if section == 'categories' else ('id',):
        counts = Counter(entry[field] for entry in entries)
        double = [value for value, count in counts.items() if count > 1]
        if double:
            yield (
                f'is ambiguous: {field} must be unique in {section}, but '
                f'{len(double)} occur more than once, for example {double[:3]}. '
                'Renumber or remove them.'
            )


def _reference_faults(coco: dict) -> Iterator[str]:
    for field, section in (('image_id', 'images'), ('category_id', 'categories')):
        known = {entry['id'] for entry in coco[section]}
        lost = [a for a in coco['annotations'] if a[field] not in known]
        if lost:
            yield (
                f'is incomplete: every {field} must be the id of one of its '
                f'{section}, but {len(lost)} annotations have none, for example '
                f'annotation {lost[0]["id"]} with {field} {lost[0][field]!r}. '
                f'Remove them or add the {section}.'
            )
    for entry in coco['annotations']:
        box, area = entry['bbox'], entry['area']
        four = isinstance(box, list) and len(box) == 4
        if not four or not all(isinstance(v, (int, float)) for v in (*box, area)):
            yield (
                f'is not COCO: bbox must be [x, y, width, height] and area a number, '
                f'but annotation {entry["id"]} has {box!r} and {area!r}. Correct or '
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
