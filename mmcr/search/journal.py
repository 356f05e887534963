"""The trials of a search on disk, so that a stopped search goes on."""

import json
import os
from collections.abc import Iterator
from math import isfinite
from pathlib import Path

from mmcr.errors import UserError
from mmcr.search.candidate import Trial, proposal_key

REMEDY = 'use another work dir, or remove the file to search anew'


class JournalError(UserError):
    """A journal that is damaged or that belongs to another search."""


class Journal:
    """One JSON line for the header, then one for every finished trial.

    A line is on disk before `append` returns, so a stop costs no more than the
    trials that were under way; a last line that it cut off is dropped.

    Args:
        path: The file; made, with its folder, if there is none.
        header: What the search depends on, as JSON; an existing file must have
            been written with the same.

    Attributes:
        scores: By `Proposal.key`, what is known: `score` and `metrics`.

    Raises:
        JournalError: The file has another header, or a damaged line.
    """

    def __init__(self, path: str | os.PathLike, header: dict):
        self.path = Path(path)
        self.scores: dict[str, dict] = {}
        header_line = _line(header)
        content = self.path.read_bytes() if self.path.exists() else b''
        if b'\n' in content:
            self._read(content, json.loads(header_line))
        elif header_line.startswith(content):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_bytes(b'')
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

    def _read(self, content: bytes, header: dict) -> None:
        first, *lines = content.splitlines(keepends=True)
        self._check_header(first, header)
        for number, line in enumerate(lines, start=2):
            try:
                if not line.endswith(b'\n'):
                    raise ValueError('cut off')
                self._remember(json.loads(line))
            except (ValueError, KeyError, TypeError):
                if number <= len(lines):
                    raise JournalError(
                        f'line {number} of {self.path} is damaged; remove that line '
                        'to score its trial again, or use another work dir'
                    ) from None
                os.truncate(self.path, len(content) - len(line))

    def _check_header(self, line: bytes, header: dict) -> None:
        try:
            written = json.loads(line)
        except ValueError:
            raise JournalError(
                f'line 1 of {self.path} is not the header of a journal; {REMEDY}'
            ) from None
        differing = list(_differences(written, header))
        if differing:
            raise JournalError(
                f'{self.path} is the journal of another search: '
                f'{"; ".join(differing)}; {REMEDY}'
            )

    def _remember(self, entry: dict) -> None:
        score, metrics = entry['score'], entry['metrics']
        if not isinstance(score, float) or not isfinite(score):
            raise ValueError(f'not a score: {score}')
        self.scores[proposal_key(entry)] = {'score': score, 'metrics': metrics}


def _line(obj: dict) -> bytes:
    return json.dumps(obj, allow_nan=False).encode() + b'\n'


def _differences(written, now, name: str = '') -> Iterator[str]:
    """Yields the fields, at any depth, that differ between two headers."""
    if isinstance(written, dict) and isinstance(now, dict):
        for key in {**written, **now}:
            field = f'{name}.{key}' if name else key
            yield from _differences(written.get(key), now.get(key), field)
    elif written != now:
        old, new = json.dumps(written), json.dumps(now)
        yield f'{name or "header"} is {old} in the file and {new} now'
