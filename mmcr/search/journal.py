"""The trials of a search on disk, so that a stopped search goes on."""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from zlib import crc32

from mmcr.checks import is_integer, is_list, is_number
from mmcr.errors import UserError
from mmcr.search.candidate import Trial, proposal_key
from mmcr.space import Arch

REMEDY = 'use another work dir, or remove the file to search anew'
RESULT = ('score', 'metrics', 'round', 'asked_by')  # what `Trial.result` may have
FIELDS = {'candidate', 'portion', *RESULT}
SUM = 'crc32'
#: What reading a line of whatever content may raise.
UNREADABLE = (ValueError, TypeError, LookupError, OverflowError, RecursionError)
#: By device and inode, the descriptors of what this process keeps locked.
_held: dict[tuple[int, int], int] = {}


class JournalError(UserError):
    """A journal that is damaged, that belongs to another search or that was lost."""


class Journal:
    """One JSON line for the header, then one for every finished trial.

    A line is on disk before `append` returns, so a stop costs no more than the trials
    that were under way; a last line that it cut off is dropped. A line ends with a
    checksum of itself and of the header's line; journals of earlier versions have none,
    and are read and gone on with. Until the process ends that opened it, no other can
    open it, or another one in its folder, for writing.

    Args:
        path: The file; made, with its folder, if there is none.
        header: What the search depends on, as JSON; an existing file must have been
            written with the same, but for what it says `about` a searcher.

    Attributes:
        scores: By `Proposal.key`, what is known, as `Trial.result`.

    Raises:
        JournalError: The file has another header or a damaged line, it cannot be read
            or written, or another process writes it.
    """

    def __init__(self, path: str | os.PathLike, header: dict):
        self.path = Path(path)
        self.scores: dict[str, dict] = {}
        header_line = _line(header, 0)
        try:
            self._file = _opened(self.path)
            with open(self._file, 'rb', closefd=False) as file:
                file.seek(0)
                content = file.read()
        except (OSError, RuntimeError) as error:  # RuntimeError: a loop of links
            raise JournalError(
                f'The journal {path} must be a file to read and to write, but that '
                f'fails: {error}; mend that, or use another work dir'
            ) from None
        self._size = len(content)
        if b'\n' in content:
            written, entries, end = _parse(content, self.path)
            if differing := list(_differences(written, json.loads(_line(header)))):
                raise JournalError(
                    f'{self.path} is the journal of another search: '
                    f'{"; ".join(differing)}; {REMEDY}'
                )
            for entry in entries:
                self._remember(entry)
            self._cut(end)
            header_line = content[: content.index(b'\n') + 1]
        elif header_line.startswith(content):
            self._cut(0)
            self._write(header_line)
        else:
            raise JournalError(f'{self.path} is not a journal; {REMEDY}')
        self._seed = crc32(header_line)

    def append(self, trial: Trial) -> None:
        """Writes a trial down for good.

        Raises:
            JournalError: The file is not what this search has left, as where it was
                removed, or it cannot be written.
        """
        entry = trial.to_json()
        self._write(_line(entry, self._seed))
        self._remember(entry)

    def _write(self, line: bytes) -> None:
        try:
            now = self.path.stat()
            kept = os.path.samestat(now, os.fstat(self._file))
        except OSError:
            kept = False
        if not kept or now.st_size != self._size:
            raise JournalError(
                f'The journal {self.path} must stay as this search leaves it, but it '
                f'was removed, replaced or changed meanwhile. Put it back if you can, '
                f'and start the search again: it scores anew what is missing.'
            )
        try:
            if os.write(self._file, line) < len(line):
                raise OSError('no room is left')
            os.fsync(self._file)
        except OSError as error:
            with suppress(OSError):
                self._cut(self._size)
            raise JournalError(
                f'The journal {self.path} must be written, but that fails: {error}. '
                f'Mend that and start the search again: it goes on from there.'
            ) from None
        self._size += len(line)

    def _cut(self, size: int) -> None:
        os.truncate(self._file, size)
        self._size = size

    def _remember(self, entry: dict) -> None:
        result = {name: entry[name] for name in RESULT if name in entry}
        self.scores[proposal_key(entry)] = result


def _opened(path: Path) -> int:
    """Opens a file, made with its folder if there is none, that no other writes.

    The locks are flock's, of an open file: the system releases them with the process,
    however it ends, so that none is left behind. That of the file holds under every
    name of it, links among them. That of the folder holds where the file is renamed or
    replaced. NFS passes the first on to its server, which drops it with the client's
    lease; it knows none of folders, since those cannot be opened for writing.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and not path.is_file():
        raise OSError('it is no file')  # to open a pipe would wait for a writer
    _locked(os.open(path.parent, os.O_RDONLY), path)
    return _locked(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666), path)


def _locked(file: int, path: Path) -> int:
    """The descriptor, or that which this process has locked the same with before."""
    stat = os.fstat(file)
    place = stat.st_dev, stat.st_ino
    if place in _held:
        os.close(file)
        return _held[place]
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        raise JournalError(
            f'{path} is being written by another process; wait for that search to end, '
            f'or use another work dir'
        ) from None
    except OSError:
        pass  # a file system without such locks: `Journal._write` notices the other
    _held[place] = file
    return file


def _release() -> None:
    """In a forked process: a worker that outlives the search must hold no lock."""
    for file in _held.values():
        os.close(file)
    _held.clear()


os.register_at_fork(after_in_child=_release)


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
        if path.exists() and not path.is_file():
            raise OSError('it is no file')
        content = path.read_bytes()
    except (OSError, RuntimeError) as error:
        raise JournalError(f'the journal {path} cannot be read: {error}') from None
    header, entries, _ = _parse(content, path)
    return header, entries


def _parse(content: bytes, path: Path) -> tuple[dict, list[dict], int]:
    """The header, the entries, and how many bytes of `content` they take."""
    # torn: the part of a line before its end, or what a crash has left of it
    *lines, torn = content.split(b'\n')
    if len(lines) > 1 and not lines[-1].strip(b'\0'):
        torn = lines.pop() + b'\n' + torn
    try:
        header, checked = _read(lines[0] if lines else torn, 0)
    except UNREADABLE:
        raise JournalError(
            f'Line 1 of {path} is not the header of a journal, or is damaged; {REMEDY}'
        ) from None
    seed = crc32(content[: len(content.partition(b'\n')[0]) + 1])
    if _is_whole(torn[:-1], seed, checked):  # it is not torn: its end is damaged
        lines.append(torn)
        torn = b''
    entries, scores = [], {}
    for number, line in enumerate(lines[1:], start=2):
        try:
            entry = _entry(line, seed, checked, header.get('score'))
            if scores.setdefault(proposal_key(entry), entry['score']) != entry['score']:
                raise ValueError('another score than before')
            entries.append(entry)
        except UNREADABLE:
            raise JournalError(
                f'Line {number} of {path} is damaged; remove that line to score '
                'its trial again, or use another work dir'
            ) from None
    return header, entries, len(content) - len(torn)


def _is_whole(line: bytes, seed: int, checked: bool) -> bool:
    with suppress(*UNREADABLE):
        return bool(_entry(line, seed, checked, None))
    return False


def _read(line: bytes, seed: int) -> tuple[dict, bool]:
    """The object, and whether a checksum says that it is what was written.

    What is not as `_line` writes it, such as two fields of one name, is refused.
    """
    obj = json.loads(line.decode())
    if not isinstance(obj, dict):
        raise ValueError('not an object')
    checked = obj.pop(SUM, None) is not None
    json.dumps(obj, ensure_ascii=False).encode()  # halves of characters have no code
    if _line(obj, seed if checked else None) != line + b'\n':
        raise ValueError('not as it was written')
    return obj, checked


def _entry(line: bytes, seed: int, checked: bool, score: object) -> dict:
    """Reads a trial's line; one of `UNREADABLE` where it is none."""
    entry, has_sum = _read(line, seed)
    start, stop = entry['portion']
    value, metrics = entry['score'], entry['metrics']
    Arch.from_json(entry['candidate']['arch'])
    if not (
        (has_sum or not checked)
        and set(entry) <= FIELDS
        and isinstance(metrics, Mapping)
        and is_number(value)
        and metrics.get(score, value) == value  # a score is one of its metrics
        and 0 <= start < stop <= 1
        and is_integer(entry.get('round', 0), at_least=0)
        and is_list(entry.get('asked_by', ()))
    ):
        raise ValueError('not a trial')
    return entry


def _line(obj: dict, seed: int | None = None) -> bytes:
    """As JSON; with a seed, and a checksum of it and of the seed."""
    text = json.dumps(obj, allow_nan=False)
    if seed is not None:
        text = json.dumps({**obj, SUM: f'{crc32(text.encode(), seed):08x}'})
    return text.encode() + b'\n'


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
