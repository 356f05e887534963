"""Single bits that flip, and ends that are cut off, in what a work leaves.

Each change must be noticed (a message) or harmless (the same result); never may another
architecture, another weight or a traceback come of it.
"""

import argparse
import json
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch
from pairs import quiet

from mmcr.engine.export import read_arch
from mmcr.errors import UserError
from mmcr.files import write_json
from mmcr.models.weights.checkpoint import read_weights
from mmcr.report.pages.search_page import read_search
from mmcr.report.tables import markdown_table
from mmcr.workflow.steps import Step, StepRunner, write_configs

from .kills import start
from .works import SEARCHERS, begun, left_by, searches

VERDICTS = ('noticed', 'harmless', 'another result', 'traceback')


@dataclass(frozen=True)
class Reader:
    """What is made of a file.

    Args:
        name: For the table.
        path: Of the file.
        read: Returns what counts of it; a UserError where it is damaged.
    """

    name: str
    path: Path
    read: Callable[[], object]


def damaged(content: bytes, rng: Random) -> tuple[str, bytes]:
    """One flipped bit; of five times once, a cut instead."""
    if rng.random() < 0.2:
        return 'cut', content[: rng.randrange(len(content))]
    place = rng.randrange(8 * len(content))
    flipped = bytearray(content)
    flipped[place // 8] ^= 1 << place % 8
    return 'flip', bytes(flipped)


def verdict(reader: Reader, expected: object) -> str:
    try:
        found = reader.read()
    except UserError:
        return 'noticed'
    except Exception as error:
        print(f'{reader.name}: {type(error).__name__}: {error}', flush=True)
        return 'traceback'
    return 'harmless' if found == expected else 'another result'


def told(folder: Path) -> object:
    """What a report names as best; a UserError where it says that there is more."""
    search = read_search(folder)
    if not search.finished:
        raise UserError('The search is not finished: what follows is its state so far.')
    return [history.best and history.best.arch for history in search.histories]


def readers(folder: Path, kinds: Sequence[str] = tuple(SEARCHERS)) -> list[Reader]:
    """Of a finished search of every kind, and of a training step."""
    found = []
    for work in (work for work in searches() if work.name in kinds):
        place = folder / work.name / 'work'
        place.parent.mkdir(parents=True)
        if start(work, place, None):
            raise RuntimeError(place.with_suffix('.said').read_text())
        journal = place / 'trials.jsonl'

        def go_on(work=work, place=place) -> object:
            """The search goes on, in a fork: a process keeps what it has locked."""
            before = left_by(place)
            said = place.with_suffix('.said')
            said.unlink(missing_ok=True)
            code = start(work, place, None)
            left = left_by(place)
            begun(place)
            for name, content in before.items():
                (place / name).write_bytes(content)
            if code:
                text = said.read_text()
                kind = UserError if 'JournalError: ' in text else RuntimeError
                raise kind(text[-300:])
            return left

        found.append(Reader('journal, search goes on', journal, go_on))
        found.append(Reader('journal, report', journal, lambda p=place: told(p)))
        if not hasattr(SEARCHERS[work.name](), 'searchers'):
            best = place / 'best_arch.json'
            found.append(Reader('best_arch.json', best, lambda b=best: read_arch(b)))
    return [*found, *_of_steps(folder)]


class Screen:
    """Says how far a step came, and runs nothing."""

    def done_before(self, step: Step, seconds: float) -> None:
        raise Stopped

    start = done_before


class Stopped(Exception):
    """A step is done already, or would be done again: both are harmless."""


def plain(weights: Mapping) -> list:
    return [(name, value.tolist()) for name, value in weights.items()]


def _of_steps(folder: Path) -> list[Reader]:
    step = Step('step', 'network')
    text = 'train_dataloader = dict(batch_size=2)\nrandomness = dict(seed=3)\n'
    write_configs(folder, {step.name: text})
    own = folder / step.name
    weights, pointer = own / 'epoch_2.pth', own / 'last_checkpoint'
    state = {'layer.weight': torch.arange(300.0), 'layer.bias': torch.ones(3)}
    for path in (own / 'epoch_1.pth', weights):
        torch.save(dict(state_dict=state, meta=dict(epoch=2)), path)
    pointer.write_text(str(weights))
    runner = StepRunner(folder, [step], Screen())
    conditions = runner.conditions(step)
    state_file, configs = own / 'step.json', folder / 'configs.json'
    noted = dict(conditions=conditions, done=True, seconds=3)
    write_json(state_file, noted)

    def run() -> None:
        whole = state_file.read_bytes()
        try:
            runner._run(step, 0)
        except Stopped:
            pass
        finally:
            state_file.write_bytes(whole)

    def written() -> str:
        whole = configs.read_bytes()
        try:
            write_configs(folder, {step.name: text})
        finally:
            configs.write_bytes(whole)
        return (own / 'config.py').read_text()

    return [
        Reader('step.json', state_file, run),
        Reader('configs.json', configs, written),
        Reader('last_checkpoint', pointer, lambda: runner.checkpoint(step.name)),
        Reader('checkpoint', weights, lambda: plain(read_weights(weights))),
    ]


def campaign(found: list[Reader], count: int, seed: int) -> dict[str, Counter]:
    """Damages the files in turn; verdicts by kind of reader."""
    rng = Random(seed)
    verdicts: dict[str, Counter] = {}
    expected = {id(reader): reader.read() for reader in found}
    for i in range(count):
        reader = found[i % len(found)]
        whole = reader.path.read_bytes()
        way, content = damaged(whole, rng)
        reader.path.write_bytes(content)
        said = verdict(reader, expected[id(reader)])
        reader.path.write_bytes(whole)
        verdicts.setdefault(reader.name, Counter()).update([way, said])
        if said == 'another result':
            print(f'{reader.name}: {way}: another result', flush=True)
    return verdicts


def table(verdicts: dict[str, Counter]) -> str:
    """For people, in Markdown."""
    columns = ('flip', 'cut', *VERDICTS)
    total = sum(verdicts.values(), Counter())
    cells = [
        [name, *(str(counts[column]) for column in columns)]
        for name, counts in (*verdicts.items(), ('in all', total))
    ]
    titles = ['what is read', 'flips', 'cuts', *VERDICTS]
    return markdown_table(titles, cells, words=(0,))


def main(argv: list[str]) -> int:
    """Runs a campaign and prints its table; returns the exit status."""
    parser = argparse.ArgumentParser('python -m tests.campaign flips')
    parser.add_argument('--count', type=int, default=1000)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--out', type=Path, help='JSON file of the rows')
    args = parser.parse_args(argv)
    quiet()
    with tempfile.TemporaryDirectory() as folder:
        verdicts = campaign(readers(Path(folder)), args.count, args.seed)
    print(table(verdicts))
    if args.out:
        args.out.write_text(json.dumps(verdicts, indent=1))
    return int(any(c['another result'] + c['traceback'] for c in verdicts.values()))
