"""Files: written completely or not at all, told apart by their bytes."""

import hashlib
import json
import os
from pathlib import Path


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file beside its place and rename it into it.

    A reader, or a run that was interrupted, never sees half of it.
    """
    partial = path.with_name(f'.{path.name}.{os.getpid()}.part')
    try:
        partial.write_bytes(data)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def read_state(path: Path) -> dict:
    """What `write_json` left; nothing where there is no such file, or another's."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def write_json(path: Path, content: dict) -> None:
    """Write compact JSON by `write_bytes`; equal content gives equal bytes."""
    # One call of dumps runs in C; dump to a stream would take minutes for a
    # file of COCO's size.
    write_bytes(path, json.dumps(content, separators=(',', ':')).encode())


def file_digest(path: str | Path) -> str:
    """SHA-256 of a file's bytes, as hexadecimal digits."""
    digest = hashlib.sha256()
    with Path(path).expanduser().open('rb') as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
