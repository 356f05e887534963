"""Two gloo processes do what one does."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.model import convert_sync_batchnorm
from mmengine.runner import Runner
from nets import on_path, snapshot, some_archs
from pairs import one_of, run_pair
from searches import SEARCHES, cfg_of, search
from tiny import (
    OPERATION,
    STAGE,
    build_detector,
    candidate_evaluator,
    left_by,
    train_cfg,
)

from mmcr.errors import UserError
from mmcr.search import Complete, Partial, Proposal, read_journal
from mmcr.space import Arch
from mmcr.training import ArchSamplingHook

pytestmark = pytest.mark.usefixtures('quiet_mmdet')

SECONDS = 240  # a hang ends here
# by what the messages say, what a user does wrong, and in which folder
MISTAKES = {
    'calibration.images is 5 in the file and 4 now': (
        'exhaustive',
        dict(calibration_images=4),
    ),
    'nowhere.pth': ('other', dict(checkpoint='nowhere.pth')),
    "but got 'coco/bbox_AP'": ('other', dict(score='coco/bbox_AP')),
}


def message(root, work_dir, mistake):
    try:
        search(root, work_dir, 'exhaustive', **mistake)
    except UserError as error:
        return str(error)


def scores(root, synchronised):
    """Of proposals whose number no number of processes divides."""
    model = build_detector(OPERATION)
    if synchronised:
        model.backbone = convert_sync_batchnorm(model.backbone, 'torch')
    candidates = candidate_evaluator(model, root, 5)
    space = candidates.backbone.space
    proposals = [Proposal(Complete(arch)) for arch in some_archs(space, 2)]
    proposals.append(Proposal(Partial(Arch({'stage1.0': 2}), space, 0)))
    return [trial.metrics for trial in candidates.evaluate(proposals)]


def train(root, work_dir):
    """The paths, whether they and nothing else have changed, and a checksum."""
    cfg = train_cfg(root, work_dir, iterations=3)
    cfg.launcher = 'pytorch'
    cfg.model_wrapper_cfg = dict(type='mmcr.ActivePathDDP')
    runner = Runner.from_cfg(cfg)
    backbone = runner.model.module.backbone
    paths, exact = [], []

    class Recorder(Hook):
        def before_train_iter(self, runner, *args, **kwargs):
            self.before = snapshot(backbone)

        def after_train_iter(self, runner, *args, **kwargs):
            changed = {
                name
                for name, value in backbone.named_parameters()
                if not torch.equal(self.before[name], value)
            }
            exact.append(changed == on_path(backbone, backbone.arch))
            paths.append(backbone.arch.to_json())

    runner.register_hook(Recorder(), priority='LOWEST')
    runner.train()
    total = sum(p.double().sum().item() for p in runner.model.parameters())
    return paths, exact, total


def work(rank, root, folder):
    """All that a process of the pair does."""
    with one_of(2, rank, folder):
        found = dict(
            {kind: search(root, folder / kind, kind) for kind in SEARCHES},
            scores=scores(root, False),
            synchronised=scores(root, True),
            train=train(root, folder / 'train'),
            errors=[
                message(root, folder / name, mistake)
                for name, mistake in MISTAKES.values()
            ],
        )
        (folder / f'{rank}.json').write_text(json.dumps(found))


@pytest.fixture(scope='module')
def pair(supernets, tmp_path_factory):
    """What each of two processes found, and the folder of both."""
    folder = tmp_path_factory.mktemp('pair')
    return run_pair(work, supernets, folder, SECONDS), folder


@pytest.mark.parametrize('kind', SEARCHES)
def test_a_search_writes_what_one_process_writes(pair, supernets, tmp_path, kind):
    found, folder = pair
    metrics = search(supernets, tmp_path, kind)
    assert found[0][kind] == found[1][kind] == metrics
    assert left_by(tmp_path) == left_by(folder / kind)


def test_scores_are_those_of_one_process(pair, supernets):
    (first, second), _ = pair
    assert first['scores'] == second['scores'] == scores(supernets, False)
    assert first['scores'][0]['coco/bbox_mAP'] > 0


def test_synchronised_norms_are_calibrated_batch_by_batch_too(pair):
    (first, second), _ = pair
    assert first['synchronised'] == second['synchronised'] == first['scores']


def test_a_users_error_ends_both(pair):
    (first, second), _ = pair
    assert second['errors'] == first['errors']
    for error, words in zip(first['errors'], MISTAKES):
        assert words in error


def test_both_train_the_same_paths_and_nothing_else(pair):
    (first, second), _ = pair
    assert first['train'] == second['train']
    paths, exact, _ = first['train']
    space = build_detector(STAGE).backbone.space
    draw = ArchSamplingHook(seed=7).draw
    assert paths == [draw(space, i).to_json() for i in range(3)]
    assert exact == [True] * 3


ENDING = """
import os
import sys

from torch import distributed

from mmcr.cli import user_errors
from mmcr.errors import UserError


def threads():
    return len(os.listdir('/proc/self/task'))


@user_errors()
def main(store, fail):
    distributed.init_process_group('gloo', f'file://{store}', rank=0, world_size=1)
    distributed.barrier()
    assert threads() > before
    if fail:
        raise UserError('fails')


before = threads()
main(os.path.abspath('first'), False)
assert threads() == before, threads()
main(os.path.abspath('second'), True)
"""


@pytest.mark.skipif(sys.platform != 'linux', reason='counts threads in /proc')
def test_a_tool_ends_without_threads_that_exchange(tmp_path):
    """One that frees a tensor while the interpreter ends aborts the process."""
    done = subprocess.run(
        [sys.executable, '-c', ENDING], cwd=tmp_path, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (1, 'error: fails\n')


def started(command, folder, stderr):
    """Starts dist_search.sh in a folder, on a port of its own."""
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    return subprocess.Popen(
        command,
        cwd=folder,
        env=dict(
            os.environ,
            PORT=str(port),
            PATH=f'{Path(sys.executable).parent}:{os.environ["PATH"]}',
        ),
        stdout=subprocess.DEVNULL,
        stderr=stderr,
    )


def pid_of_rank(rank, work_dir):
    """Of the process with this rank and work dir."""
    for process in Path('/proc').glob('[0-9]*'):
        try:
            variables = (process / 'environ').read_bytes().split(b'\0')
            arguments = (process / 'cmdline').read_bytes().split(b'\0')
        except OSError:  # it has ended, or is not ours
            continue
        if f'RANK={rank}'.encode() in variables and bytes(work_dir) in arguments:
            return int(process.name)
    return None


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != 'linux', reason='looks for a process in /proc')
def test_a_killed_rank_ends_the_job_and_the_same_command_goes_on(supernets, tmp_path):
    cfg = cfg_of(supernets, tmp_path / 'alone', 'racing', group_size=1)
    cfg.dump(tmp_path / 'search.py')
    work_dir, stderr = tmp_path / 'work', tmp_path / 'stderr'
    script = Path(__file__).parents[2] / 'tools/dist_search.sh'
    config, where = tmp_path / 'search.py', ('--work-dir', work_dir)
    command = [script, config, cfg.load_from, '2', *where]

    journal = work_dir / 'trials.jsonl'
    with stderr.open('w') as file:
        job = started(command, tmp_path, file)
        try:
            while not journal.exists() or len(journal.read_bytes().splitlines()) < 4:
                assert job.poll() is None
                time.sleep(0.01)
            os.kill(pid_of_rank(0, work_dir), signal.SIGKILL)
            killed = time.monotonic()
            assert job.wait(SECONDS) != 0
        finally:
            job.terminate()
    assert time.monotonic() - killed < 60
    *_, last = (message := stderr.read_text()).splitlines()
    assert '(local_rank: 0)' in message and 'SIGKILL' in message
    assert last.startswith('The search has not ended well (exit status 1)')
    assert 'mmcr/engine' not in message, message  # no traceback of the survivor
    before = journal.read_bytes()
    assert 3 <= len(read_journal(journal)[1]) < 20

    with stderr.open('w') as file:
        job = started(command, tmp_path, file)
        try:
            assert job.wait(SECONDS) == 0, stderr.read_text()
        finally:
            job.terminate()
    assert journal.read_bytes().startswith(before[: before.rindex(b'\n') + 1])
    Runner.from_cfg(cfg).test()
    assert left_by(work_dir) == left_by(tmp_path / 'alone')
