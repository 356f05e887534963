"""Two gloo processes do what one does."""

import json
import os
import time
from pathlib import Path

import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.model import convert_sync_batchnorm
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from nets import on_path, snapshot, some_archs
from tiny import (
    OPERATION,
    STAGE,
    build_detector,
    candidate_evaluator,
    search_cfg,
    train_cfg,
    write_checkpoint,
)

from mmcr.engine import ArchSamplingHook
from mmcr.errors import UserError
from mmcr.launch import import_formatter
from mmcr.search import Complete, Partial, Proposal
from mmcr.space import Arch

pytestmark = pytest.mark.usefixtures('quiet_mmdet')

GREEDY = dict(
    searcher=dict(type='mmcr.GreedySearcher', k=1), num_minibatches=3, group_size=2
)
SEARCHES = dict(stage=(STAGE, {}), operation=(OPERATION, GREEDY))
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


def train(root, folder):
    """The paths, whether they and nothing else have changed, and a checksum."""
    cfg = train_cfg(root, folder / 'train', iterations=3)
    cfg.launcher = 'pytorch'
    cfg.model_wrapper_cfg = dict(
        type='MMDistributedDataParallel', device_ids=None, find_unused_parameters=True
    )
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
    torch.set_num_threads(1)
    os.environ['LOCAL_RANK'] = str(rank)
    MMLogger.get_instance('quiet', log_level='ERROR')
    init_default_scope('mmdet')
    torch.distributed.init_process_group(
        'gloo', init_method=f'file://{folder}/store', rank=rank, world_size=2
    )
    found = dict(
        {kind: search(root, folder, kind) for kind in SEARCHES},
        scores=scores(root, False),
        synchronised=scores(root, True),
        train=train(root, folder),
        errors={
            fail.__name__: message(fail, root, folder)
            for fail in (other_search, missing_checkpoint, unknown_score)
        },
    )
    (folder / f'{rank}.json').write_text(json.dumps(found))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


@pytest.fixture(scope='module')
def pair(shapes, tmp_path_factory):
    """What each of two processes found, and the folder of both."""
    import_formatter()  # or both write its cache at once
    folder = tmp_path_factory.mktemp('pair')
    for kind, (backbone, _) in SEARCHES.items():
        write_checkpoint(shapes / f'{kind}.pth', backbone)
    processes = torch.multiprocessing.spawn(
        work, (shapes, folder), nprocs=2, join=False
    )
    deadline = time.monotonic() + SECONDS
    while not processes.join(max(0, deadline - time.monotonic())):
        if time.monotonic() > deadline:
            for process in processes.processes:
                process.kill()
            pytest.fail(f'no end after {SECONDS} s')
    found = [json.loads((folder / f'{rank}.json').read_text()) for rank in (0, 1)]
    return found, folder


@pytest.mark.parametrize('kind', SEARCHES)
def test_a_search_writes_what_one_process_writes(pair, shapes, tmp_path, kind):
    found, folder = pair
    metrics = search(shapes, tmp_path, kind)
    assert found[0][kind] == found[1][kind] == metrics
    for name in ('trials.jsonl', 'best_arch.json', 'best_arch.py'):
        one, two = (
            Path(base, 'search', kind, name).read_bytes() for base in (tmp_path, folder)
        )
        assert one == two


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
    space = build_detector(STAGE).backbone.space
    assert first['train']['paths'] == [
        ArchSamplingHook(seed=7).draw(space, i).to_json() for i in range(3)
    ]
    assert first['train']['exact'] == [True] * 3
