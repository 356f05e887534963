"""Files: written completely or not at all, told apart by their bytes."""

import fcntl
import hashlib
import json
import os
import re
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mmcr.errors import UserError

_PARTIAL = re.compile(r'\.[0-9a-f]{16}\.part')
_undo: list[dict[Path, bytes | None]] = []  # of each `undone_if_refused` that is open


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write a file beside its place and rename it into it, on the disk for good.

    A reader, or a run that was interrupted, never sees half of it. Where the path is
    a link, what it points to is written; a file that is replaced keeps its mode. What
    killed writers of the same file left is removed.

    Raises:
        OSError: It cannot be written; its ``filename`` is the path.
    """
    path = Path(path)
    try:
        target = Path(os.path.realpath(path))
        old = target.stat() if target.exists() or target.is_symlink() else None
        for before in _undo:
            before.setdefault(target, target.read_bytes() if old else None)
        if target.exists() and not target.is_file() and not target.is_dir():
            target.write_bytes(data)  # a device or a pipe
            return
        partial, file = _open_partial(target)
        try:
            with file:
                if old:
                    os.fchmod(file.fileno(), old.st_mode & 0o7777)
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
                os.replace(partial, target)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        _sync_folder(target.parent)
    except OSError as error:  # of writes it has no name, of the partial file that one's
        error.filename, error.filename2 = str(path), None
        raise


def _open_partial(target: Path):
    """A new file beside another, under a lock that ends with its writer."""
    name = f'.{target.name[:50]}'  # the longest name with an ending would be too long
    for left in target.parent.glob('.*.part'):
        if left.name.startswith(name) and _PARTIAL.fullmatch(left.name, len(name)):
            _remove_left(left)
    while True:
        partial = target.with_name(f'{name}.{secrets.token_hex(8)}.part')
        file = partial.open('xb')  # follows no link
        with suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX)
        if partial.exists():  # nobody took it for left in between
            return partial, file
        file.close()


def _remove_left(partial: Path) -> None:
    with suppress(OSError):  # gone, or its writer holds it
        with os.fdopen(os.open(partial, os.O_RDONLY | os.O_NOFOLLOW)) as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            partial.unlink()


def _sync_folder(folder: Path) -> None:
    with suppress(OSError):  # some file systems cannot
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def undone_if_refused(folder: Path) -> Iterator[None]:
    """An error in the block leaves the folder as it was before.

    What `write_bytes` wrote gets its old bytes or is removed, and so are folders in it
    that are then new and empty. For a Runner's own files: `mmcr.engine.outputs`.
    """
    known = set(folder.rglob('*'))
    _undo.append(written := {})
    try:
        yield
    except Exception:
        for path, data in written.items():
            with suppress(OSError):
                if data is None:
                    path.unlink()
                elif path.read_bytes() != data:
                    path.write_bytes(data)
        _remove_empty(set(folder.rglob('*')) - known)
        raise
    finally:
        _undo.remove(written)


@contextmanager
def made_folder(folder: Path) -> Iterator[None]:
    """Makes a folder for the block, and its parents; what is empty after errors, goes.

    Raises:
        OSError: It cannot be made.
    """
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        _remove_empty(new)
        raise


def _remove_empty(folders: Iterable[Path]) -> None:
    for path in sorted(folders, reverse=True):
        with suppress(OSError):  # a file, or not empty
            path.rmdir()


def check_output(name: str, path: str | Path) -> None:
    """Check at the start that a file can be written, and that there is none yet.

    Of work dirs, see `mmcr.engine.outputs` and `mmcr.workflow.place`; that a path is
    not empty, `mmcr.cli.place`.

    Args:
        name: Of the option, for the message.

    Raises:
        UserError: Something is there, whoever made it.
        OSError: The place cannot be written to.
    """
    with suppress(FileNotFoundError):
        os.lstat(path)
        raise UserError(
            f'{name} must name a new file, so that nothing is overwritten, but {path} '
            f'exists. Name another, or move that away.'
        )
    try:
        partial, file = _open_partial(Path(path))
    except OSError as error:
        error.filename = str(path)
        raise
    file.close()
    partial.unlink()


def read_json(path: str | Path, what: str = 'JSON') -> object:
    """What a JSON file holds.

    Raises:
        UserError: It is none; `what` says what it should be.
        OSError: It cannot be read.
    """
    content = Path(path).read_bytes()
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        reason = str(error) if isinstance(error, ValueError) else 'its nesting is deep'
        raise UserError(
            f'{path} must be {what}, but it is damaged: {reason}. Put back the file '
            f'that was there, or move it away.'
        ) from None


def read_state(path: Path) -> dict:
    """What `write_json` left; nothing where there is no such file.

    Raises:
        UserError: It is something else.
    """
    try:
        content = read_json(path, 'what a run wrote')
    except FileNotFoundError:
        return {}
    if not isinstance(content, dict):
        raise UserError(
            f'{path} must hold the object that a run wrote, but holds a '
            f'{type(content).__name__}. Put back the file that was there, or move it '
            f'away.'
        )
    return content


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
