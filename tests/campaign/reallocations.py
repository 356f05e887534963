"""A whole reallocation that is killed again and again, until it ends.

Processes are those of a user: tools/reallocate.py and the steps that it starts. In the
end there must be what is left by one that was never killed, and no step that was done
may have been done again.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from random import Random

import torch
from config_files import write_workplace
from tiny import left_by

from mmcr.errors import UserError
from mmcr.report.tables import markdown_table
from mmcr.workflow.place import alone

from .deaths import ROOT, environment
from .works import parts

#: What is killed: the tool with its steps, the tool alone (a step then goes on and
#: ends), a step alone; or whatever process comes to such a call (`deaths`).
WAYS = ('all', 'tool', 'step', 'before', 'after', 'half')
OPTIONS = {
    'stage': ('--no-dilations', '--trainings', '9', '--candidates', '2'),
    'crnas': ('--trainings', '9', '--candidates', '2'),
    'crnas --fast': ('--fast', '--trainings', '6'),
}
#: Where calls are counted, and up to which.
TOOLS = (('reallocate.py', 60), ('train.py', 12), ('search.py', 40), ('test.py', 6))
SAME = ('comparison.json', 'comparison.md', 'run_off.json', 'mine*.py')
TIMED = ('time', 'data_time', 'checkpoint', 'crc32', 'searches')
SECONDS = 900  # after which a work is ended: it hangs


class Reallocation:
    """One in a work dir.

    Attributes:
        kills: By way, how many hit.
        faults: What was not as it must be.
    """

    def __init__(self, folder: Path, name: str, kind: str) -> None:
        self.folder, self.work = folder, folder / name
        self.log = self.work.with_suffix('.said')
        tool = str(ROOT / 'tools/reallocate.py')
        where = 'mine.py', '--work-dir', name
        self.command = [sys.executable, tool, *where, *OPTIONS[kind]]
        self.kills: Counter[str] = Counter()
        self.faults: list[str] = []
        self.runs = 0

    def start(self, **more: str) -> subprocess.Popen:
        self.runs += 1
        more = {'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1', **more}
        with self.log.open('wb') as log:
            return subprocess.Popen(
                self.command,
                cwd=self.folder,
                env={**os.environ, **more},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def end(self, process: subprocess.Popen) -> dict:
        """Waits for its end; returns what it leaves."""
        if code := process.wait(SECONDS):
            self.faults.append(f'ended by {code}: {self._said()}')
            return {}
        return self.left()

    def kill(self, way: str, rng: Random) -> bool:
        """Starts it and kills it; returns whether it came to its end before."""
        done = self.done()
        dying = {}
        if way in ('before', 'after', 'half'):
            place = self.folder / 'site'
            tool, most = rng.choice(TOOLS)
            at = 1 + int(most * rng.random())
            dying = environment(place, tool, way, at, rng.random())
        process = self.start(**dying)
        if dying:
            try:
                process.wait(rng.uniform(15, 40))
            except subprocess.TimeoutExpired:  # it makes no such call soon
                way = 'all'
        if way in ('all', 'tool', 'step'):
            self._strike(process, way, rng)
        code = process.wait(SECONDS)
        if code == -signal.SIGKILL or (code and self._step_died()):
            self.kills[way] += 1
        elif code:
            self.faults.append(f'{way}: it ended by {code}: {self._said()}')
        if 'Traceback' in self._said():
            self.faults.append(f'{way}: traceback: {self._said()}')
        self._wait_for_steps()
        now = self.done()
        if again := [name for name in done if now.get(name) != done[name]]:
            self.faults.append(f'{way}: done again: {again}')
        return code == 0

    def _strike(self, process: subprocess.Popen, way: str, rng: Random) -> None:
        """Kills at a random moment, mostly while a step runs."""
        waits = rng.random() < 0.8 or way == 'step'
        while waits and process.poll() is None and not children(process.pid):
            time.sleep(0.05)
        end = time.monotonic() + rng.uniform(0, 50)
        while time.monotonic() < end and process.poll() is None:
            time.sleep(0.05)
        try:
            if way == 'all':
                os.killpg(process.pid, signal.SIGKILL)
            elif way == 'tool':
                process.kill()
            else:
                while process.poll() is None and not (steps := children(process.pid)):
                    time.sleep(0.01)
                os.kill(steps[0], signal.SIGKILL)
        except (ProcessLookupError, UnboundLocalError):
            pass  # it was quicker

    def _step_died(self) -> bool:
        return ' failed: ' in self._said() and 'error: ' in self._said()

    def _said(self) -> str:
        return self.log.read_text(errors='replace')[-400:]

    def _wait_for_steps(self) -> None:
        """A step that was left behind comes to its end."""
        end = time.monotonic() + SECONDS
        while self.work.exists():
            try:
                with alone(self.work):
                    return
            except UserError:
                if time.monotonic() > end:
                    self.faults.append('a step hangs')
                    return
                time.sleep(0.2)

    def done(self) -> dict[str, object]:
        """Steps that are done, with what tells whether they were done again."""
        found = {}
        for state in self.work.rglob('step.json'):
            if json.loads(state.read_bytes()).get('done'):
                files = [
                    (path.name, path.stat().st_mtime_ns, path.stat().st_size)
                    for name in ('*.pth', 'trials.jsonl', 'step.json', 'test/*/*.json')
                    for path in sorted(state.parent.glob(name))
                ]
                found[str(state.parent.relative_to(self.work))] = files
        return found

    def left(self) -> dict:
        """What must be the same, killed or not."""
        found: dict = dict(left_by(self.work))
        for name in SAME:
            for path in sorted(self.work.rglob(name)):
                found[str(path.relative_to(self.work))] = path.read_bytes()
        for name, content in found.items():
            if name.endswith('.json'):
                found[name] = untimed(json.loads(content))
            elif name.endswith('.jsonl'):
                found[name] = untimed(list(map(json.loads, content.splitlines())))
        best = torch.load(self.work / 'result/best.pth', weights_only=False)
        found['best.pth'] = {n: w.tolist() for n, w in best['state_dict'].items()}
        found['steps'] = sorted(self.done())
        return found


def untimed(content: object) -> object:
    """Without what was measured in seconds, and sums of files that hold such."""
    if isinstance(content, dict):
        return {k: untimed(v) for k, v in content.items() if k not in TIMED}
    if isinstance(content, list):
        return [untimed(each) for each in content]
    return content


def children(pid: int) -> list[int]:
    """Processes that a process has started and that run mmcr's tools."""
    try:
        found = Path(f'/proc/{pid}/task/{pid}/children').read_text().split()
        threads = Path(f'/proc/{pid}/task').iterdir()
        for thread in threads:  # steps are started by threads
            found += (thread / 'children').read_text().split()
        return [
            int(child)
            for child in dict.fromkeys(found)
            if b'/tools/' in Path(f'/proc/{child}/cmdline').read_bytes()
        ]
    except OSError:
        return []


def campaign(folder: Path, count: int, seed: int, kinds: list[str]) -> list[dict]:
    """Kills reallocations of the kinds in turn until there are so many kills."""
    rng, rows = Random(seed), []
    if not (folder / 'mine.py').exists():
        write_workplace(folder)
    for kind in kinds:
        reference = Reallocation(folder, f'whole_{len(rows)}', kind)
        beside = reference.start()
        row = dict(kind=kind, kills=Counter(), works=0, runs=0, steps=0)
        row['faults'] = reference.faults
        rows.append(row)
        whole = None
        while row['kills'].total() < count and not row['faults']:
            killed = Reallocation(folder, f'killed_{len(rows)}_{row["works"]}', kind)
            most = count - row['kills'].total()
            ended = False
            while not ended and killed.kills.total() < most and not killed.faults:
                way = rng.choice(WAYS)
                ended = killed.kill(way, rng)
                print(f'{way}: {len(killed.done())} steps', flush=True)
            left = killed.left() if ended else killed.end(killed.start())
            whole = whole or reference.end(beside)
            differs = [n for n in {**whole, **left} if whole.get(n) != left.get(n)]
            if not killed.faults and (differs or parts(killed.work)):
                killed.faults.append(f'differs: {differs}, {parts(killed.work)}')
            row['kills'].update(killed.kills)
            row['works'] += 1
            row['runs'] += killed.runs
            row['steps'] += len(killed.done())
            row['faults'] += killed.faults
        if row['faults']:
            print(*row['faults'], sep='\n', flush=True)
    return rows


def table(rows: list[dict]) -> str:
    """For people, in Markdown."""
    columns = ['reallocation', 'kills', *WAYS, 'works', 'runs', 'steps']
    lines = []
    for row in rows:
        ways = (row['kills'][way] for way in WAYS)
        cells = row['kind'], row['kills'].total(), *ways, row['works'], row['runs']
        cells += row['steps'], len(row['faults'])
        lines.append(map(str, cells))
    return markdown_table([*columns, 'not as unkilled'], lines, words=(0,))


def main(argv: list[str]) -> int:
    """Runs a campaign and prints its table; returns the exit status."""
    parser = argparse.ArgumentParser('python -m tests.campaign reallocations')
    parser.add_argument('--count', type=int, default=24, help='of kills of each kind')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument(
        '--keep',
        type=Path,
        help='folder for all that is left; another campaign goes on there',
    )
    parser.add_argument(
        '--kinds', default='stage,crnas', help=f'of {", ".join(OPTIONS)}'
    )
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        begin = time.monotonic()
        place = (args.keep or Path(folder)).resolve()
        rows = campaign(place, args.count, args.seed, args.kinds.split(','))
        print(f'{time.monotonic() - begin:.0f} s', flush=True)
    print(table(rows))
    return int(any(row['faults'] for row in rows))
