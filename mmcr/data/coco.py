"""COCO annotation files, read with one clear message per fault."""

import gc
import json
import os
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from mmcr.errors import UserError


class DataError(UserError):
    """An annotation file or a data set of a config that cannot be used."""


def _is_id(value: object) -> bool:
    return type(value) in (int, float, str) and value == value


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_number(value: object) -> bool:
    """Of a size that float32 holds; NaN counts, since mmdet leaves its boxes out."""
    return type(value) in (int, float) and not abs(value) >= 1e9


def _is_size(value: object) -> bool:
    return _is_number(value) and value >= 1 and value == int(value)


def _is_box(value: object) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 4
        and {*map(type, value)} <= {int, float}
        and not sum(map(abs, value)) >= 1e9
    )


def _is_flag(value: object) -> bool:
    return value in (0, 1, None)


_ID = _is_id, 'a number or a text'
_TEXT = _is_text, 'a text that is not empty'
_SIZE = _is_size, 'a whole number of pixels, at least 1'
#: What the fields of every entry must be.
_FIELDS = {
    'images': dict(id=_ID, file_name=_TEXT, width=_SIZE, height=_SIZE),
    'categories': dict(id=_ID, name=_TEXT),
    'annotations': dict(
        id=_ID,
        image_id=_ID,
        category_id=_ID,
        bbox=(_is_box, '[x, y, width, height], four finite numbers'),
        area=(_is_number, 'a finite number'),
    ),
}
_OPTIONAL = dict(annotations=dict(iscrowd=(_is_flag, '0 or 1, where it is given')))


def read_coco(path: str | Path, annotated: bool = True) -> dict:
    """Read a COCO annotation file and check that it is one.

    Boxes of no or one pixel or of NaN, equal boxes and images without annotations are
    let through: mmdet copes with them. The content is kept until `forget`, for all
    who ask for the same file: none may change it.

    Args:
        annotated: Whether it must hold annotations; False for sets to be
            predicted on only, such as COCO's test-dev.

    Raises:
        DataError: The file is missing, empty, not JSON, not COCO, begins with
            a byte order mark, or contradicts itself.
    """
    try:
        state, place = os.stat(path), os.path.realpath(path)
        version = state.st_mtime_ns, state.st_size, state.st_ino
    except (OSError, ValueError):
        place, version = str(path), None
    try:
        return _read_coco(place, annotated, version)
    except DataError as fault:
        raise DataError(f"Annotation file '{path}' {fault}") from None


@lru_cache
def _read_coco(path: str, annotated: bool, version: object) -> dict:
    content = _read_json(path)
    for fault in _faults(content, annotated):
        raise DataError(fault)
    return content


def forget() -> None:
    """Free what `read_coco` keeps."""
    _read_coco.cache_clear()


def _read_json(path: str) -> object:
    try:
        data = Path(path).read_bytes()
        if data.startswith((BOM_UTF8, BOM_UTF16_LE, BOM_UTF16_BE)):
            fault = (
                'begins with a byte order mark, which mmdet cannot read. Save it '
                'as UTF-8 without BOM.'
            )
        elif data.startswith((b'\x1f\x8b', b'PK')):
            fault = 'is compressed. Unpack it.'
        elif not data.strip():
            fault = 'is empty. Make or copy it again.'
        else:
            gc.disable()  # it would go through millions of new lists, in vain
            return json.loads(data)
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
    finally:
        gc.enable()
    raise DataError(fault)


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
        if not isinstance(entry, dict) or not fields.keys() <= entry.keys():
            lacks = fields.keys() - (entry if isinstance(entry, dict) else ())
            yield (
                f'is not COCO: every entry of {section} must have {sorted(fields)}, '
                f'but entry {index} lacks {sorted(lacks)}.'
            )
    for field, (holds, rule) in {**fields, **_OPTIONAL.get(section, {})}.items():
        wrong = [entry for entry in entries if not holds(entry.get(field))]
        if wrong:
            yield (
                f'is not COCO: {field} must be {rule}, but {len(wrong)} of '
                f'{len(entries)} {section} have others: '
                f'{_examples(field, wrong)}. Correct or remove them.'
            )
    for field in ('id', 'name') if section == 'categories' else ('id',):
        counts = Counter(entry[field] for entry in entries)
        double = [value for value, count in counts.items() if count > 1]
        if double:
            yield (
                f'is ambiguous: {field} must be unique in {section}, but '
                f'{len(double)} occur more than once, for example '
                f'[{", ".join(map(_short, double[:3]))}]. Renumber or remove them.'
            )


def _examples(field: str, entries: list[dict]) -> str:
    def name(entry: dict) -> str:
        return 'file_name' if entry.get('file_name') and field != 'file_name' else 'id'

    return ', '.join(
        f'{name(entry)} {_short(entry[name(entry)])} has {_short(entry[field])}'
        for entry in entries[:3]
    )


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f'{text[:77]}...'


def _reference_faults(coco: dict) -> Iterator[str]:
    for field, section in (('image_id', 'images'), ('category_id', 'categories')):
        known = {entry['id'] for entry in coco[section]}
        lost = [a for a in coco['annotations'] if a[field] not in known]
        if lost:
            yield (
                f'is incomplete: every {field} must be the id of one of its '
                f'{section}, but {len(lost)} annotations have none, for example '
                f'annotation {_short(lost[0]["id"])} with {field} '
                f'{_short(lost[0][field])}. Remove them or add the {section}.'
            )
