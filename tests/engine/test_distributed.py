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
from mmengine.model import convert_sync_batchnorm
from mmengine.runner import Runner
from nets import on_path, snapshot, some_archs
from pairs import one_of, run_pair
from tiny import (
    OPERATION,
    STAGE,
    build_detector,
    candidate_evaluator,
    search_cfg,
    train_cfg,
    write_checkpoint,
)

from mmcr.errors import UserError
from mmcr.search import Complete, Partial, Proposal, read_journal
from mmcr.space import Arch
from mmcr.training import ArchSamplingHook

pytestmark = pytest.mark.usefixtures('quiet_mmdet')

GREEDY = dict(
    searcher=dict(type='mmcr.GreedySearcher', k=1), num_minibatches=3, group_size=2
)
HALVING = dict(type='mmcr.HalvingSearcher', eta=2, rungs=2, finalists=2)
RACING = dict(type='mmcr.RacingGreedySearcher', k=1, slices=3, level=0.25)
SEARCHES = dict(
    stage=(STAGE, {}),
    operation=(OPERATION, GREEDY),
    halving=(STAGE, dict(searcher=HALVING, group_size=3)),
    racing=(OPERATION, dict(searcher=RACING)),
    joint=(STAGE, dict(searcher=HALVING, budget=[7, 8], group_size=2)),
)
SECONDS = 240  # a hang ends here


def search(root, folder, kind, **more):
    backbone, options = SEARCHES[kind]
    return Runner.from_cfg(
        search_cfg(
            root,
            folder / 'search' / kind,
            root / f'{kind}.pth',
            backbone,
            **{**options, **more},
        )
    ).test()


def left_by(folder):
    """What a search leaves for its user."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for name in ('trials.jsonl', 'best_arch.*')
        for path in folder.rglob(name)
    }


def other_search(root, folder):
    search(root, folder, 'stage', calibration_images=4)


def missing_checkpoint(root, folder):
    Runner.from_cfg(search_cfg(root, folder, root / 'nowhere.pth')).test()


def unknown_score(root, folder):
    search(root, folder / 'other', 'stage', score='coco/bbox_AP', budget=6)


def message(run, *args):
    try:
        run(*args)
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


WRAPPERS = dict(
    active=dict(type='mmcr.ActivePathDDP'),
    ddp=dict(
        type='MMDistributedDataParallel', device_ids=None, find_unused_parameters=True
    ),
)


def train(root, folder, wrapper):
    """The paths, whether they and nothing else have changed, and a checksum."""
    cfg = train_cfg(root, folder / 'train' / wrapper, iterations=3)
    cfg.launcher = 'pytorch'
    cfg.model_wrapper_cfg = WRAPPERS[wrapper]
    runner = Runner.from_cfg(cfg)
    backbone = runner.model.module.backbone
    paths, exact = [], []

    class Recorder(ArchSamplingHook):
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
    return dict(paths=paths, exact=exact, total=total)


def work(rank, root, folder):
    """All that a process of the pair does."""
    with one_of(2, rank, folder):
        found = dict(
            {kind: search(root, folder, kind) for kind in SEARCHES},
            scores=scores(root, False),
            synchronised=scores(root, True),
            train={wrapper: train(root, folder, wrapper) for wrapper in WRAPPERS},
            errors={
                fail.__name__: message(fail, root, folder)
                for fail in (other_search, missing_checkpoint, unknown_score)
            },
        )
        (folder / f'{rank}.json').write_text(json.dumps(found))


@pytest.fixture(scope='module')
def pair(shapes, tmp_path_factory):
    """What each of two processes found, and the folder of both."""
    folder = tmp_path_factory.mktemp('pair')
    for kind, (backbone, _) in SEARCHES.items():
        write_checkpoint(shapes / f'{kind}.pth', backbone)
    found = run_pair(work, shapes, folder, SECONDS)
    return found, folder


@pytest.mark.parametrize('kind', SEARCHES)
def test_a_search_writes_what_one_process_writes(pair, shapes, tmp_path, kind):
    found, folder = pair
    metrics = search(shapes, tmp_path, kind)
    assert found[0][kind] == found[1][kind] == metrics
    one, two = (left_by(base / 'search' / kind) for base in (tmp_path, folder))
    assert one == two and len(one) == (5 if kind == 'joint' else 3)


def test_scores_are_those_of_one_process(pair, shapes):
    (first, second), _ = pair
    assert first['scores'] == second['scores'] == scores(shapes, False)
    assert first['scores'][0]['coco/bbox_mAP'] > 0


def test_synchronised_norms_are_calibrated_batch_by_batch_too(pair):
    (first, second), _ = pair
    assert first['synchronised'] == second['synchronised'] == first['scores']


@pytest.mark.parametrize(
    'error, words',
    [
        ('other_search', 'calibration.images is 5 in the file and 4 now'),
        ('missing_checkpoint', 'nowhere.pth'),
        ('unknown_score', "but got 'coco/bbox_AP'"),
    ],
)
def test_a_users_error_ends_both(pair, error, words):
    (first, second), _ = pair
    assert words in first['errors'][error]
    assert second['errors'][error] == first['errors'][error]


def test_both_train_the_same_paths_and_nothing_else(pair):
    (first, second), _ = pair
    assert first['train'] == second['train']
    assert first['train']['active'] == first['train']['ddp']  # the same bits
    space = build_detector(STAGE).backbone.space
    assert first['train']['active']['paths'] == [
        ArchSamplingHook(seed=7).draw(space, i).to_json() for i in range(3)
    ]
    assert first['train']['active']['exact'] == [True] * 3


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
@pytest.mark.parametrize('victim', [0, 1])
def test_a_killed_rank_ends_the_job_and_the_same_command_goes_on(
    shapes, tmp_path, victim
):
    checkpoint = write_checkpoint(tmp_path / 'supernet.pth', OPERATION)
    cfg = search_cfg(shapes, tmp_path, None, OPERATION)
    cfg.test_cfg.update(searcher=RACING, group_size=1)
    cfg.pop('work_dir')
    cfg.dump(tmp_path / 'search.py')
    work_dir = tmp_path / 'work'
    script = Path(__file__).parents[2] / 'tools/dist_search.sh'
    command = [script, tmp_path / 'search.py', checkpoint, '2', '--work-dir', work_dir]

    journal = work_dir / 'trials.jsonl'
    with (tmp_path / 'stderr').open('w') as stderr:
        job = started(command, tmp_path, stderr)
        try:
            while not journal.exists() or len(journal.read_bytes().splitlines()) < 4:
                assert job.poll() is None
                time.sleep(0.01)
            os.kill(pid_of_rank(victim, work_dir), signal.SIGKILL)
            killed = time.monotonic()
            assert job.wait(SECONDS) != 0
        finally:
            job.terminate()
    assert time.monotonic() - killed < 60
    *_, last = (message := (tmp_path / 'stderr').read_text()).splitlines()
    assert f'(local_rank: {victim})' in message and 'SIGKILL' in message
    assert last.startswith('The search has not ended well (exit status 1)')
    assert 'mmcr/engine' not in message, message  # no traceback of the survivor
    before = journal.read_bytes()
    assert 3 <= len(read_journal(journal)[1]) < 20

    with (tmp_path / 'stderr').open('w') as stderr:
        job = started(command, tmp_path, stderr)
        try:
            assert job.wait(SECONDS) == 0, (tmp_path / 'stderr').read_text()
        finally:
            job.terminate()
    assert journal.read_bytes().startswith(before[: before.rindex(b'\n') + 1])
    cfg.update(load_from=str(checkpoint), work_dir=str(tmp_path / 'alone'))
    Runner.from_cfg(cfg).test()
    assert left_by(work_dir) == left_by(tmp_path / 'alone')
