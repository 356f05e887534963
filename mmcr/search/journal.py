"""The trials of a search on disk, so that a stopped search goes on."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None

from mmcr.checks import is_integer, is_number
from mmcr.errors import UserError
from mmcr.search.candidate import Trial, proposal_key
from mmcr.space import Arch

REMEDY = 'use another work dir, or remove the file to search anew'
RESULT = ('score', 'metrics', 'round', 'asked_by')  # what `Trial.result` may have
#: By path, the journals that this process writes; to close a file unlocks it.
_locked: dict[Path, BinaryIO] = {}
if hasattr(os, 'register_at_fork'):  # a worker that outlives the search holds no lock
    os.register_at_fork(after_in_child=_locked.clear)


class JournalError(UserError):
    """A journal that is damaged or that belongs to another search."""


class Journal:
    """One JSON line for the header, then one for every finished trial.

    A line is on disk before `append` returns, so a stop costs no more than the trials
    that were under way; a last line that it cut off is dropped. Until the process ends
    that opened it, no other can open it for writing.

    Args:
        path: The file; made, with its folder, if there is none.
        header: What the search depends on, as JSON; an existing file must have been
            written with the same, but for what it says `about` a searcher.

    Attributes:
        scores: By `Proposal.key`, what is known, as `Trial.result`.

    Raises:
        JournalError: The file has another header or a damaged line, or another
            process writes it.
    """

    def __init__(self, path: str | os.PathLike, header: dict):
        self.path = Path(path)
        self.scores: dict[str, dict] = {}
        header_line = _line(header)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        _lock(self.path.resolve())
        content = self.path.read_bytes()
        if b'\n' in content:
            written, entries, end = _parse(content, self.path)
            if differing := list(_differences(written, json.loads(header_line))):
                raise JournalError(
                    f'{self.path} is the journal of another search: '
                    f'{"; ".join(differing)}; {REMEDY}'
                )
            for entry in entries:
                self._remember(entry)
            if end < len(content):
                os.truncate(self.path, end)
        elif header_line.startswith(content):
            os.truncate(self.path, 0)
            self._write(header_line)
        else:
            raise JournalError(f'{self.path} is not a journal; {REMEDY}')

    def append(self, trial: Trial) -> None:
        """Writes a trial down for good."""
        entry = trial.to_json()
        self._write(_line(entry))
        self._remember(entry)

    def _write(self, line: bytes) -> None:
        with self.path.open('ab') as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())

    def _remember(self, entry: dict) -> None:
        result = {name: entry[name] for name in RESULT if name in entry}
        self.scores[proposal_key(entry)] = result


def _lock(path: Path) -> None:
    """Keeps other processes from writing a file as long as this one lives."""
    if path in _locked:  # by an earlier search of this process
        _locked.pop(path).close()
    file = path.open('ab')
    try:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise JournalError(
            f'{path} is being written by another process; wait for that search to end, '
            f'or use another work dir'
        ) from None
    except OSError:  # a file system without locks
        pass
    _locked[path] = file


def read_journal(path: str | os.PathLike) -> tuple[dict, list[dict]]:
    """Reads a journal without changing it, also while a search writes it.

    Returns:
        The header, and `Trial.to_json` of every trial, in the order in which they were
        written; a last line that is not written to its end is left out.

    Raises:
        JournalError: There is no file, or it has no header or a damaged line.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise JournalError(f'the journal {path} cannot be read: {error}') from None
    header, entries, _ = _parse(content, path)
    return header, entries


def _parse(content: bytes, path: Path) -> tuple[dict, list[dict], int]:
    """The header, the entries, and how many bytes of `content` they take."""
    first, *lines = content.splitlines(keepends=True) or [b'']
    try:
        header = json.loads(first)
        if not isinstance(header, dict):
            raise ValueError(f'not a header: {header}')
    except ValueError:
        raise JournalError(
            f'Line 1 of {path} is not the header of a journal; {REMEDY}'
        ) from None
    entries, end = [], len(first)
    for number, line in enumerate(lines, start=2):
        try:
            entries.append(_entry(line))
            end += len(line)
        except (ValueError, KeyError, TypeError):
            if number <= len(lines):
                raise JournalError(
                    f'Line {number} of {path} is damaged; remove that line to score '
                    'its trial again, or use another work dir'
                ) from None
    return header, entries, end


def _entry(line: bytes) -> dict:
    """Reads a trial's line; a ValueError, KeyError or TypeError where it is none."""
    entry = json.loads(line)
    Arch.from_json(entry['candidate']['arch'])
    proposal_key(entry)
    dict(entry['metrics'])
    has_round = is_integer(entry.get('round', 0), at_least=0)
    if not (line.endswith(b'\n') and is_number(entry['score']) and has_round):
        raise ValueError('cut off, or without a score or a round')
    return entry


def _line(obj: dict) -> bytes:
    return json.dumps(obj, allow_nan=False).encode() + b'\n'


def _differences(written, now, name: str = '') -> Iterator[str]:
    """Yields the fields, at any depth, that differ between two headers."""
    if isinstance(written, dict) and isinstance(now, dict):
        for key in {**written, **now}:
            if key == 'about':
                continue
            field = f'{name}.{key}' if name else key
            yield from _differences(written.get(key), now.get(key), field)
    elif written != now:
        old, new = json.dumps(written), json.dumps(now)
        yield f'{name or "header"} is {old} in the file and {new} now'
