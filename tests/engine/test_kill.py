"""A search that is killed, at any moment, goes on to the same end."""

import json
import os
import random
import signal
import sys
from functools import cache
from pathlib import Path

import pytest
from mmengine.runner import Runner
from pairs import forked, one_of, quiet
from searches import GROUP, SEARCHES, cfg_of
from tiny import left_by

import mmcr
from mmcr.cli import user_errors
from mmcr.search import read_journal
from mmcr.search.candidate import proposal_key

pytestmark = pytest.mark.usefixtures('quiet_mmdet')

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
    quiet()
    cfg = cfg_of(root, folder, kind)
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
    with (
        one_of(2, rank, folder),
        (folder / f'{rank}.err').open('w') as sys.stderr,
        user_errors(),
    ):
        search(root, folder, 'exhaustive', killer)


@pytest.fixture(scope='module')
def context():
    return forked(__name__)


def start(context, root, folder, kind, place=None, call=float('inf')):
    """Runs a search until it ends or kills itself.

    Returns:
        Keys of the candidates that were started on and have no score, and
        whether the search was killed.
    """
    folder.mkdir(exist_ok=True)
    (folder / 'groups').write_text('')
    args = root, folder, kind, Killer(place, call)
    process = context.Process(target=search, args=args)
    process.start()
    process.join(SECONDS)
    assert process.exitcode in (0, -signal.SIGKILL), process.kill()
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


@pytest.fixture(scope='module')
def whole(context, supernets, tmp_path_factory):
    """Per kind: what a search that ran through has left, and its calls."""

    @cache
    def of(kind: str) -> tuple[dict[str, bytes], int]:
        folder = tmp_path_factory.mktemp(kind)
        lost, killed = start(context, supernets, folder, kind)
        assert not lost and not killed
        left = left_by(folder)
        assert len(left) == 5 if kind == 'joint' else 3 <= len(left)
        return left, int((folder / 'calls').read_text())

    return of


def check_goes_on(context, root, folder, kind, expected, kills):
    """Kills a search once per entry of `kills`, and then lets it end."""
    killed = []
    for kill in [*kills, {}]:
        lost, dead = start(context, root, folder, kind, **kill)
        killed.append(dead)
        # a journal is never rewritten: what it held stays as it was
        for name, content in left_by(folder).items():
            assert expected[name].startswith(content)
        assert len(lost) <= GROUP
        if not dead:
            break
    assert killed[0] and not killed[-1]
    assert left_by(folder) == expected


@pytest.mark.slow
@pytest.mark.parametrize('kind', SEARCHES)
def test_killed_at_random(context, whole, supernets, tmp_path, kind):
    expected, calls = whole(kind)
    rng = random.Random(f'{kind} 5')
    kills = [dict(call=rng.randrange(1, calls)) for _ in range(3)]
    check_goes_on(context, supernets, tmp_path / 'search', kind, expected, kills)


@pytest.mark.parametrize('place', PLACES)
def test_killed_in(context, whole, supernets, tmp_path, place):
    expected, _ = whole('joint')
    kills = [dict(place=place, call=random.Random(f'{place} 5').randrange(2, 9))]
    check_goes_on(context, supernets, tmp_path / 'search', 'joint', expected, kills)


@pytest.mark.parametrize(
    'place, victim', [('calibrate', 1), ('_predict', 0), ('_scored', 1)]
)
def test_a_process_that_waits_for_a_killed_one_says_so(
    context, supernets, tmp_path, place, victim
):
    processes = []
    for rank in range(2):
        killer = Killer(place, 5) if rank == victim else Killer(None, float('inf'))
        args = rank, supernets, tmp_path, killer
        processes.append(context.Process(target=search_as_rank, args=args))
    for process in processes:
        process.start()
    for process in processes:
        process.join(SECONDS)
        process.kill()
    codes = [process.exitcode for process in processes]
    assert codes.pop(victim) == -signal.SIGKILL and codes == [1]
    errors = (tmp_path / f'{1 - victim}.err').read_text()
    last = errors.splitlines()[-1]
    assert last.startswith('error: Another process of this run has ended')
    assert 'Traceback' not in errors
