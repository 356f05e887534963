"""Kills that a search and a training must survive with nothing lost.

A work is killed (SIGKILL) again and again, at random moments, at random calls of mmcr
or within a call that writes, and goes on each time. In the end there must be what a
work leaves that was never killed, and nothing else; no trial may be scored twice but
those that were under way.
"""

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from random import Random

from mmcr.report.tables import markdown_table

from .deaths import NEVER, watch_calls, watch_system
from .works import (
    Work,
    begun,
    parts,
    real,
    scored,
    searches,
    silenced,
)

SECONDS = 300  # after which a work is ended: it hangs
#: How a process is killed: at a random moment, at a call that mmcr makes or is made to
#: it, or at one of the system: before it, after it, or with half of the data written.
WAYS = ('moment', 'call', 'before', 'after', 'half')


def start(
    work: Work, folder: Path, way: str | None, at: float = 0, share: float = 0
) -> int:
    """Runs a work in a fork of this process; returns how it ended.

    Args:
        way: One of `WAYS`; 'count' counts the calls instead; ``None``: it is let be.
        at: Seconds for 'moment', else a number of calls.
        share: Of data that are half written.
    """
    child = os.fork()
    if child:
        end = time.monotonic() + (at if way == 'moment' else SECONDS)
        while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0):
            if time.monotonic() > end:
                os.kill(child, signal.SIGKILL)
                ended = os.waitpid(child, 0)
                break
            time.sleep(0.0005)
        return os.waitstatus_to_exitcode(ended[1])
    code = 1
    try:
        silenced(folder.with_suffix('.said'))
        if way == 'count':
            counts = watch_system('', NEVER, 0), watch_calls(NEVER)
        elif way == 'call':
            watch_calls(int(at))
        elif way in ('before', 'after', 'half'):
            watch_system(way, int(at), share)
        work.run(folder)
        code = 0
        if way == 'count':
            sys.setprofile(None)
            numbers = json.dumps([count() for count in counts])
            folder.with_suffix('.calls').write_text(numbers)
    except SystemExit as error:
        code = error.code or 0
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.setprofile(None)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 1)


class Chain:
    """A work that is killed up to so many times and then let be.

    Attributes:
        kills: By way, how many of them hit.
        faults: What was not as it must be.
    """

    def __init__(self, work: Work, folder: Path, whole: object, scale: dict) -> None:
        self.work, self.folder, self.whole, self.scale = work, folder, whole, scale
        self.kills: Counter[str] = Counter()
        self.faults: list[str] = []

    def run(self, rng: Random, most: int) -> None:
        for _ in range(rng.randint(1, most)):
            way = rng.choice(WAYS)
            # what is done already is not done again: later kills come sooner
            at = self.scale[way] * rng.random() ** 2
            if way != 'moment':
                at = 1 + int(at)
            if self._step(way, at, rng.random()):
                break
        else:
            self._step(None)
        if left := parts(self.folder):
            self.faults.append(f'left half done: {left}')
        if not self.faults and self.work.result(self.folder) != self.whole:
            self.faults.append('another result')

    def _step(self, way: str | None, at: float = 0, share: float = 0) -> bool:
        """Whether the work came to its end."""
        before = scored(self.folder)
        code = start(self.work, self.folder, way, at, share)
        if code == -signal.SIGKILL and way:
            self.kills[way] += 1
        elif code:
            said = self.folder.with_suffix('.said').read_text()[-300:]
            self.faults.append(f'after {dict(self.kills)} it ended by {code}: {said}')
        self._check_trials(before)
        return code == 0

    def _check_trials(self, before: set[str]) -> None:
        if self.work.group is None:
            return
        asked = begun(self.folder)
        after = scored(self.folder)
        if again := before & set(asked):
            self.faults.append(f'scored twice: {len(again)}')
        if len(set(asked) - after) > self.work.group:
            self.faults.append(f'lost: {len(set(asked) - after)}')
        if before - after:
            self.faults.append('forgotten')


def scale_of(work: Work, folder: Path) -> tuple[object, dict]:
    """The result of a work that is not killed, and where kills may hit."""
    for way in ('count', None):
        place = folder / str(way) / 'work'
        place.parent.mkdir(parents=True)
        begin = time.monotonic()
        if start(work, place, way):
            raise RuntimeError(place.with_suffix('.said').read_text())
    spent = time.monotonic() - begin
    counted = (folder / 'count/work.calls').read_text()
    system, calls = (1.2 * count for count in json.loads(counted))
    return work.result(place), dict(
        moment=spent, call=calls, before=system, after=system, half=system
    )


def campaign(works: list[Work], folder: Path, count: int, seed: int) -> list[dict]:
    """Kills the works in turn until there are so many kills; a row for each."""
    rng = Random(seed)
    wholes = {}
    for work in works:
        wholes[work.name] = scale_of(work, folder / work.name.replace(': ', '_'))
    rows = {
        w.name: dict(work=w.name, kills=0, chains=0, ways=Counter(), faults=[])
        for w in works
    }
    done = 0
    while done < count:
        for work in works:
            place = folder / work.name.replace(': ', '_') / 'killed' / 'work'
            place.parent.mkdir()
            chain = Chain(work, place, *wholes[work.name])
            chain.run(rng, 6)
            row = rows[work.name]
            row['kills'] += chain.kills.total()
            row['chains'] += 1
            row['ways'].update(chain.kills)
            row['faults'] += chain.faults
            for fault in chain.faults:
                print(f'{work.name}: {fault}', flush=True)
            before, done = done, done + chain.kills.total()
            if before // 100 < done // 100:
                print(f'{done} kills', flush=True)
            kept = place.parent
            if chain.faults:
                kept = kept.rename(kept.with_name(f'fault_{row["chains"]}'))
            else:
                remove(kept)
            if done >= count:
                break
    return list(rows.values())


def remove(folder: Path) -> None:
    for path in sorted(folder.rglob('*'), reverse=True):
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    folder.rmdir()


def table(rows: list[dict]) -> str:
    """For people, in Markdown."""
    columns = ['work', 'kills', *WAYS, 'runs to the end', 'not as unkilled']
    ways = Counter()
    for row in rows:
        ways.update(row['ways'])
    total = dict(
        work='in all',
        kills=sum(row['kills'] for row in rows),
        chains=sum(row['chains'] for row in rows),
        ways=ways,
        faults=[fault for row in rows for fault in row['faults']],
    )
    cells = [
        [row['work'], row['kills'], *(row['ways'][way] for way in WAYS)]
        + [row['chains'], len(row['faults'])]
        for row in (*rows, total)
    ]
    return markdown_table(columns, [map(str, row) for row in cells], words=(0,))


def main(argv: list[str]) -> int:
    """Runs a campaign and prints its table; returns the exit status."""
    parser = argparse.ArgumentParser('python -m tests.campaign kills')
    parser.add_argument('--count', type=int, default=1000, help='of kills')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--kinds', help='of works, by commas; default: cheap searches')
    parser.add_argument('--real', action='store_true', help='tools themselves')
    parser.add_argument('--out', type=Path, help='JSON file of the rows')
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        works = real(Path(folder)) if args.real else searches()
        if args.kinds:
            works = [work for work in works if work.name in args.kinds.split(',')]
        begin = time.monotonic()
        rows = campaign(works, Path(folder, 'kills'), args.count, args.seed)
        print(f'{time.monotonic() - begin:.0f} s', flush=True)
    print(table(rows))
    if args.out:
        args.out.write_text(json.dumps(rows, indent=1))
    return int(any(row['faults'] for row in rows))
