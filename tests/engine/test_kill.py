"""A search that is killed, at any moment, goes on to the same end."""

import json
import multiprocessing
import os
import random
import signal
import sys
import time
from multiprocessing import forkserver
from pathlib import Path

import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from tiny import OPERATION, STAGE, search_cfg, write_checkpoint

import mmcr
from mmcr.cli import user_errors
from mmcr.search import read_journal
from mmcr.search.candidate import proposal_key

pytestmark = pytest.mark.usefixtures('quiet_mmdet')

GROUP = 3
HALVING = dict(type='mmcr.HalvingSearcher', eta=2, rungs=2, finalists=2)
GREEDY = dict(type='mmcr.GreedySearcher', k=2)
RACING = dict(type='mmcr.RacingGreedySearcher', k=2, slices=3, level=0.25)
EVOLUTION = dict(
    type='mmcr.EvolutionSearcher',
    population=3,
    generations=3,
    top=2,
    mutations=1,
    crossovers=1,
)
SEARCHES = dict(
    exhaustive=(STAGE, {}),
    halving=(STAGE, dict(searcher=HALVING)),
    greedy=(OPERATION, dict(searcher=GREEDY, num_minibatches=3)),
    racing=(OPERATION, dict(searcher=RACING)),
    evolution=(OPERATION, dict(searcher=EVOLUTION)),
    joint=(STAGE, dict(searcher=GREEDY, budget=[7, 8])),
)
# where a search spends its time, and where it writes
PLACES = ['calibrate', '_predict', 'compute', '_known_scores', '_write', 'write_best']
SECONDS = 120  # a hang ends here


class Killer:
    """Kills this process at a function call that mmcr makes or that is made to it.

    Args:
        place: Name of a function; calls count only while it runs.
        call: Which call that is.
    """

    def __init__(self, place: str | None, call: float) -> None:
        self.place = place
        self.call = call
        self.calls = 0
        self._inside = 0
        self._root = str(Path(mmcr.__file__).parent)

    def __call__(self, frame, event, _) -> None:
        if not frame.f_code.co_filename.startswith(self._root):
            return
        if frame.f_code.co_name == self.place:
            self._inside += dict(call=1).get(event, -1 if event == 'return' else 0)
        if event in ('call', 'c_call') and (self.place is None or self._inside):
            self.calls += 1
            if self.calls >= self.call:
                os.kill(os.getpid(), signal.SIGKILL)


def search(root: Path, folder: Path, kind: str, killer: Killer) -> None:
    """What a process to be killed does; it notes what each group holds."""
    torch.set_num_threads(1)
    MMLogger.get_instance('quiet', log_level='ERROR')
    init_default_scope('mmdet')
    backbone, options = SEARCHES[kind]
    options = {'group_size': GROUP, **options}
    cfg = search_cfg(root, folder, root / f'{kind}.pth', backbone, **options)
    cfg.test_dataloader.batch_size = 1
    runner = Runner.from_cfg(cfg)
    candidates = runner.test_loop.candidates
    run = candidates._run

    def noted_run(proposals, progress):
        with (folder / 'groups').open('a') as file:
            file.write(json.dumps([proposal.key for proposal in proposals]) + '\n')
        return run(proposals, progress)

    candidates._run = noted_run
    sys.setprofile(killer)
    runner.test()
    sys.setprofile(None)
    (folder / 'calls').write_text(str(killer.calls))


def search_as_rank(rank: int, root: Path, folder: Path, killer: Killer) -> None:
    """What one process of two does."""
    os.environ['LOCAL_RANK'] = str(rank)
    torch.distributed.init_process_group(
        'gloo', init_method=f'file://{folder}/store', rank=rank, world_size=2
    )
    with (folder / f'{rank}.err').open('w') as sys.stderr, user_errors():
        search(root, folder, 'exhaustive', killer)


@pytest.fixture(scope='module')
def context():
    """Starts processes that have imported everything already."""
    forked = multiprocessing.get_context('forkserver')
    forked.set_forkserver_preload([__name__])
    with pytest.MonkeyPatch.context() as patched:
        # the server imports before it is told of the path
        patched.setenv('PYTHONPATH', os.pathsep.join(sys.path))
        forkserver.ensure_running()
    return forked


def start(context, root, folder, kind, place=None, call=None, lines=None, delay=0.0):
    """Runs a search until it ends or dies; returns what it did not write down.

    Args:
        place: `call` and `place` are of `Killer`.
        lines: With so many in the journal, and after a delay in seconds, it is
            killed from outside.

    Returns:
        Keys of the candidates that were started on and have no score, and
        whether the search was killed.
    """
    folder.mkdir(exist_ok=True)
    (folder / 'groups').write_text('')
    process = context.Process(
        target=search, args=(root, folder, kind, Killer(place, call or float('inf')))
    )
    process.start()
    deadline = time.monotonic() + SECONDS
    while process.is_alive() and (lines is None or written(folder) < lines):
        assert time.monotonic() < deadline, process.kill()
        process.join(0.005)
    process.join(delay)
    process.kill()
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL)
    assert process.exitcode == 0 or call or lines
    begun = [
        key
        for group in (folder / 'groups').read_text().splitlines()
        for key in json.loads(group)
    ]
    assert len(set(begun)) == len(begun)
    lost = set(begun)
    if begun:
        _, entries = read_journal(folder / 'trials.jsonl')
        lost -= {proposal_key(entry) for entry in entries}
    return lost, process.exitcode != 0


def written(folder: Path) -> int:
    """Lines of the journal so far."""
    journal = folder / 'trials.jsonl'
    return journal.read_bytes().count(b'\n') if journal.exists() else 0


def found(folder: Path) -> dict[str, bytes]:
    """All that a search leaves for its user."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for pattern in ('trials.jsonl', 'best_arch.*')
        for path in sorted(folder.rglob(pattern))
    }


@pytest.fixture(scope='module')
def whole(context, shapes, tmp_path_factory):
    """Per kind: what a search that ran through has found, and its calls."""
    done = {}

    def of(kind: str) -> tuple[dict[str, bytes], int]:
        if kind not in done:
            write_checkpoint(shapes / f'{kind}.pth', SEARCHES[kind][0])
            folder = tmp_path_factory.mktemp(kind)
            lost, killed = start(context, shapes, folder, kind)
            assert not lost and not killed
            done[kind] = found(folder), int((folder / 'calls').read_text())
            expected = 1 + 2 * (2 if kind == 'joint' else 1)
            assert len(done[kind][0]) == expected
        return done[kind]

    return of


def check_goes_on(context, shapes, folder, kind, expected, kills):
    """Kills a search once per entry of `kills`, and then lets it end."""
    killed = []
    for kill in [*kills, {}]:
        lost, dead = start(context, shapes, folder, kind, **kill)
        killed.append(dead)
        # a journal is never rewritten: what it held stays as it was
        for name, content in found(folder).items():
            assert expected[name].startswith(content)
        assert len(lost) <= SEARCHES[kind][1].get('group_size', GROUP)
        if not dead:
            break
    assert killed[0] and not killed[-1]
    assert found(folder) == expected


@pytest.mark.slow
@pytest.mark.parametrize('kind', SEARCHES)
def test_killed_at_random(context, whole, shapes, tmp_path, kind):
    expected, calls = whole(kind)
    rng = random.Random(f'{kind} 5')
    kills = [dict(call=rng.randrange(1, calls)) for _ in range(3)]
    check_goes_on(context, shapes, tmp_path / 'search', kind, expected, kills)


@pytest.mark.parametrize('place', PLACES)
def test_killed_in(context, whole, shapes, tmp_path, place):
    expected, _ = whole('joint')
    rng = random.Random(f'{place} 5')
    kills = [dict(place=place, call=rng.randrange(2, 9))]
    check_goes_on(context, shapes, tmp_path / 'search', 'joint', expected, kills)


@pytest.mark.parametrize('place', ['calibrate', '_predict', '_scored'])
def test_a_process_that_waits_for_a_killed_one_says_so(
    context, whole, shapes, tmp_path, place
):
    whole('exhaustive')
    killers = Killer(None, float('inf')), Killer(place, 5)
    processes = [
        context.Process(target=search_as_rank, args=(rank, shapes, tmp_path, killer))
        for rank, killer in enumerate(killers)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(SECONDS)
        process.kill()
    assert [process.exitcode for process in processes] == [1, -signal.SIGKILL]
    errors = (tmp_path / '0.err').read_text()
    last = errors.splitlines()[-1]
    assert last.startswith('error: Another process of this run has ended')
    assert 'Traceback' not in errors
