"""A resumed training is, bit for bit, one that never stopped."""

import json
import logging
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmdet.datasets import CocoDataset
from mmdet.models import StandardRoIHead
from mmengine.hooks import Hook
from mmengine.registry import LOOPS
from mmengine.runner import Runner, loops
from nets import equal
from pairs import one_of, run_pair
from tiny import OPERATION, STAGE, archval_cfg, train_cfg

from mmcr.models.detector import find_backbone

pytestmark = pytest.mark.usefixtures('quiet_mmdet')

EPOCH, LENGTH = 3, 6  # iterations of an epoch and of a whole training
BY_ITERATION = dict(type='IterBasedTrainLoop', max_iters=LENGTH, val_interval=1000)
EAGERLY = dict(type='EagerLoop', max_iters=LENGTH)
BY_EPOCH = dict(type='EpochBasedTrainLoop', max_epochs=LENGTH // EPOCH)
SHUFFLED = dict(type='DefaultSampler', shuffle=True)
ENDLESS = dict(type='InfiniteSampler', shuffle=True)
GROUPED = dict(type='AspectRatioBatchSampler')
SECONDS = 120  # a hang ends here


class Paths(Hook):
    """Notes which path saw which images, and how they were flipped."""

    def __init__(self):
        self.seen = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        samples = [sample.metainfo for sample in data_batch['data_samples']]
        self.seen.append(
            [
                runner.iter,
                find_backbone(runner.model).arch.to_json(),
                [[info['img_id'], info['flip']] for info in samples],
                outputs['loss'].item(),
            ]
        )


def cfg_of(
    root,
    folder,
    backbone=STAGE,
    loop=BY_EPOCH,
    workers=0,
    hook=True,
    accumulated=1,
    **loader,
):
    cfg = train_cfg(root, folder, backbone)
    cfg.train_cfg = loop
    cfg.optim_wrapper.accumulative_counts = accumulated
    if accumulated > 1 and backbone is STAGE:
        cfg.custom_hooks[0].sampler = dict(type='mmcr.SandwichSampler', paths=3)
        cfg.custom_hooks.append(dict(type='mmcr.InPlaceDistillationHook'))
    cfg.train_dataloader.update(
        num_workers=workers,
        persistent_workers=workers > 0 and loop is not BY_ITERATION,
        **loader,
    )
    pipeline = cfg.train_dataloader.dataset.pipeline
    pipeline[-1] = dict(type='PackDetInputs')
    pipeline.insert(3, dict(type='RandomFlip', prob=0.5))
    cfg.param_scheduler = [
        dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=4),
        dict(type='MultiStepLR', by_epoch=loop is BY_EPOCH, milestones=[1], gamma=0.5),
    ]
    cfg.randomness = dict(seed=3)
    if hook:
        cfg.custom_hooks.append(dict(type='mmcr.ExactResumeHook'))
    return cfg


def train(cfg, checkpoint=None):
    if checkpoint is not None:
        cfg.update(load_from=str(checkpoint), resume=True)
    runner, paths = Runner.from_cfg(cfg), Paths()
    runner.register_hook(paths, priority='LOWEST')
    runner.train()
    # left to the garbage collector, the end of workers takes ten seconds
    loop = runner.train_loop
    batches = getattr(loop, 'dataloader_iterator', loop.dataloader)
    batches = getattr(batches, '_iterator', loop.dataloader._iterator)
    if hasattr(batches, '_shutdown_workers'):
        batches._shutdown_workers()
    return runner, paths.seen


def state(folder):
    """Weights, optimizer and schedules at the end."""
    saved = torch.load(Path(folder, f'iter_{LENGTH}.pth'), weights_only=False)
    states = saved['optimizer']['state']
    momenta = {key: value['momentum_buffer'] for key, value in states.items()}
    rates = [group['lr'] for group in saved['optimizer']['param_groups']]
    steps = [each['last_step'] for each in saved['param_schedulers']]
    return saved['state_dict'], momenta, rates, steps


def agree(one, other):
    return equal(one[0], other[0]) and equal(one[1], other[1]) and one[2:] == other[2:]


@pytest.fixture
def no_pause(monkeypatch):
    """Without mmengine's two seconds between two passes over the images."""
    monkeypatch.setattr(loops, 'time', SimpleNamespace(sleep=lambda seconds: None))


@pytest.mark.usefixtures('no_pause')
@pytest.mark.parametrize('backbone', [STAGE, OPERATION], ids=['stage', 'operation'])
@pytest.mark.parametrize(
    'loop, loader, resumed',
    [
        (BY_EPOCH, dict(sampler=SHUFFLED), range(1, LENGTH)),
        (BY_EPOCH, dict(sampler=SHUFFLED, batch_sampler=GROUPED, workers=2), (2, 3)),
        (BY_EPOCH, dict(sampler=SHUFFLED, accumulated=3), (2, 3)),
        (BY_ITERATION, dict(sampler=ENDLESS), (1, 5)),
        (BY_ITERATION, dict(sampler=SHUFFLED, workers=2), (2, 4)),
    ],
    ids=['epochs', 'grouped-workers', 'accumulated', 'endless', 'iterations-workers'],
)
def test_resumed_equals_uninterrupted(
    shapes, tmp_path, backbone, loop, loader, resumed
):
    def cfg(name):
        return cfg_of(shapes, tmp_path / name, backbone, loop, **loader)

    _, seen = train(cfg('whole'))
    assert len({str(batch) for _, _, batch, _ in seen}) > EPOCH  # flipped otherwise
    whole = state(tmp_path / 'whole')
    for i in resumed:
        _, rest = train(cfg(f'from{i}'), tmp_path / 'whole' / f'iter_{i}.pth')
        assert rest == seen[i:]
        assert agree(state(tmp_path / f'from{i}'), whole)


class Eager:
    """The images of a loop by iterations as mmengine 0.10.7 has them."""

    def __init__(self, loader):
        self.loader, self._iterator = loader, iter(loader)

    def __iter__(self):
        return self

    def __next__(self):
        try:
            return next(self._iterator)
        except StopIteration:
            self._iterator = iter(self.loader)
            return next(self._iterator)


@LOOPS.register_module()
class EagerLoop(loops.IterBasedTrainLoop):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.dataloader_iterator = Eager(self.dataloader)

    def run(self):
        self.runner.call_hook('before_train')
        self.runner.call_hook('before_train_epoch')
        for _ in range(self.iter):
            next(self.dataloader_iterator)
        self.runner.model.train()
        while self.iter < self.max_iters:
            self.run_iter(next(self.dataloader_iterator))
        self.runner.call_hook('after_train')


@pytest.mark.parametrize(
    'loader',
    [
        dict(sampler=ENDLESS),
        dict(sampler=SHUFFLED),
        dict(sampler=ENDLESS, batch_sampler=GROUPED),
    ],
    ids=['endless', 'shuffled', 'grouped'],
)
def test_a_loop_that_began_before_the_hook(
    shapes, tmp_path, no_pause, monkeypatch, loader
):
    """Its workers had taken images of their own, and its iterator only goes on."""
    info = CocoDataset.get_data_info
    monkeypatch.setattr(  # some are high, some wide
        CocoDataset, 'get_data_info', lambda self, i: {**info(self, i), 'width': 95 + i}
    )

    def cfg(name, loop=EAGERLY, workers=2):
        return cfg_of(shapes, tmp_path / name, loop=loop, workers=workers, **loader)

    _, lazy = train(cfg('lazy', BY_ITERATION, 0))
    _, seen = train(cfg('whole'))
    assert [images for _, _, images, _ in seen] == [each[2] for each in lazy]
    _, rest = train(cfg('rest'), tmp_path / 'whole' / 'iter_4.pth')
    assert rest == seen[4:]
    assert agree(state(tmp_path / 'rest'), state(tmp_path / 'whole'))


@pytest.mark.parametrize('i', (2, EPOCH), ids=['inside', 'at the end of an epoch'])
def test_without_the_hook_it_is_another_training(shapes, tmp_path, i):
    def cfg(name):
        return cfg_of(shapes, tmp_path / name, hook=False, sampler=SHUFFLED)

    _, seen = train(cfg('whole'))
    _, rest = train(cfg('rest'), tmp_path / 'whole' / f'iter_{i}.pth')
    assert rest != seen[i:]


def test_a_seed_that_nobody_chose_is_kept(shapes, tmp_path):
    def cfg(name):
        made = cfg_of(shapes, tmp_path / name, sampler=SHUFFLED)
        made.randomness = dict(seed=None)
        return made

    _, seen = train(cfg('whole'))
    _, rest = train(cfg('rest'), tmp_path / 'whole' / 'iter_2.pth')
    assert rest == seen[2:]
    _, other = train(cfg('other'))
    assert other != seen


def test_a_validation_leaves_no_trace(shapes, tmp_path):
    """A run resumed from just before it may not have it."""
    cfg = cfg_of(shapes, tmp_path / 'whole', sampler=SHUFFLED)
    cfg.update(archval_cfg(shapes, dict(all=[2, 2, 2, 3])))
    runner, seen = train(cfg)
    scores = runner.message_hub.get_scalar('val/archval/all/bbox_mAP')
    assert len(scores.data[0]) == LENGTH // EPOCH
    _, without = train(cfg_of(shapes, tmp_path / 'without', sampler=SHUFFLED))
    assert without == seen
    assert agree(state(tmp_path / 'without'), state(tmp_path / 'whole'))


class Validations(Hook):
    """Notes at which iteration they are, and which path was the last one."""

    def __init__(self, killed_at=None):
        self.seen, self.killed_at = [], killed_at

    def before_val_epoch(self, runner):
        if runner.iter == self.killed_at:
            raise KeyboardInterrupt
        self.seen.append((runner.iter, find_backbone(runner.model).arch.to_json()))


def validated_cfg(root, folder, loop):
    made = cfg_of(root, folder, loop=loop, sampler=SHUFFLED)
    made.update(archval_cfg(root, dict(all=[2, 2, 2, 3])))
    by_epoch = loop is BY_EPOCH
    made.default_hooks.checkpoint.update(
        by_epoch=by_epoch, save_best='archval/all/bbox_mAP', rule='greater'
    )
    made.custom_hooks.append(dict(type='EMAHook', momentum=0.5))
    return made


def validated(cfg, killed_at=None, **more):
    """Validations and iterations of a training, and all scores up to its end."""
    cfg.update(more)
    runner, validations, paths = Runner.from_cfg(cfg), Validations(killed_at), Paths()
    for hook in validations, paths:
        runner.register_hook(hook, priority='LOWEST')
    if killed_at:
        with pytest.raises(KeyboardInterrupt):
            runner.train()
    else:
        runner.train()
    scores = runner.message_hub.log_scalars.get('val/archval/all/bbox_mAP')
    best = sorted(path.name for path in Path(cfg.work_dir).glob('best*'))
    return validations.seen, paths.seen, (scores and scores.data[0].tolist(), best)


@pytest.mark.parametrize(
    'loop, places',
    [(BY_EPOCH, (3, 6)), (dict(BY_ITERATION, val_interval=4), (4, 6))],
    ids=['epochs', 'iterations'],
)
def test_killed_while_it_validates(shapes, tmp_path, loop, places, no_pause):
    def cfg(name):
        return validated_cfg(shapes, tmp_path / name, loop)

    checks, seen, end = validated(cfg('whole'))
    assert [i for i, _ in checks] == [*places] and len(end[0]) == 2
    for i in places:
        _, begun, _ = validated(cfg(f'from{i}'), killed_at=i)
        rest = validated(cfg(f'from{i}'), resume=True)
        assert begun == seen[:i]
        assert rest == ([each for each in checks if each[0] >= i], seen[i:], end)
    # the first was the best so far, and saved again: it was validated
    first = 'epoch_1' if loop is BY_EPOCH else f'iter_{places[0]}'
    checkpoint = str(tmp_path / 'whole' / f'{first}.pth')
    again = validated(cfg('again'), resume=True, load_from=checkpoint)
    assert again[:2] == (checks[1:], seen[places[0] :]) and again[2][0] == end[0]


def test_a_validation_made_up_for_may_stop_the_training(shapes, tmp_path):
    def cfg():
        made = validated_cfg(shapes, tmp_path, BY_EPOCH)
        stop = dict(monitor='archval/all/bbox_mAP', stopping_threshold=-1.0)
        made.custom_hooks.append(dict(type='EarlyStoppingHook', **stop))
        return made

    validated(cfg(), killed_at=EPOCH)
    checks, seen, _ = validated(cfg(), resume=True)
    assert [i for i, _ in checks] == [EPOCH] and not seen


def warnings_of(cfg, checkpoint):
    """What the log of a resumed run warns of."""
    cfg.update(load_from=str(checkpoint), resume=True, log_level='WARNING')
    runner, found = Runner.from_cfg(cfg), []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: found.append(record.getMessage())
    runner.logger.addHandler(handler)
    runner.train()
    return [text for text in found if 'not bit for bit' in text]


def test_another_batch_size_is_resumed_exactly_again(shapes, tmp_path):
    """Epochs had unequal lengths then, the first one within itself."""

    def cfg(name, batch_size=1):
        made = cfg_of(shapes, tmp_path / name, sampler=SHUFFLED)
        made.train_dataloader.batch_size = batch_size
        return made

    train(cfg('two', 2))
    runner, seen = train(cfg('one'), tmp_path / 'two' / 'iter_2.pth')
    assert len(seen) == 2 + 6 and runner.iter == runner.max_iters == 10
    for i in 3, 4, 7:
        _, rest = train(cfg(f'from{i}'), tmp_path / 'one' / f'iter_{i}.pth')
        assert rest == seen[i - 2 :]


def test_what_cannot_be_exact_is_said(shapes, tmp_path, monkeypatch):
    train(cfg_of(shapes, tmp_path / 'whole', sampler=SHUFFLED))
    train(cfg_of(shapes, tmp_path / 'bare', hook=False, sampler=SHUFFLED))
    from_here = tmp_path / 'whole' / 'iter_2.pth'

    same = cfg_of(shapes, tmp_path / 'same', sampler=SHUFFLED)
    assert warnings_of(same, from_here) == []

    other = cfg_of(shapes, tmp_path / 'other', sampler=SHUFFLED)
    other.train_dataloader.batch_size = 1
    (text,) = warnings_of(other, from_here)
    assert 'the same batch size throughout, but got 1 after 2' in text
    # two of three batches were done, so four of six are: two are left, and an epoch
    assert len(list((tmp_path / 'other').glob('iter_*.pth'))) == 2 + 6

    bare = cfg_of(shapes, tmp_path / 'rest', sampler=SHUFFLED)
    with monkeypatch.context() as patch:  # as Dynamic R-CNN's has it
        name = 'update_hyperparameters'
        patch.setattr(StandardRoIHead, name, lambda self: None, raising=False)
        adapts, text = warnings_of(bare, tmp_path / 'bare' / 'iter_2.pth')
    assert 'roi_head (StandardRoIHead) adapts its thresholds' in adapts
    assert 'written without mmcr.ExactResumeHook' in text

    # as rank 0 of four processes would have left it
    saved = torch.load(from_here, weights_only=False)
    saved['exact_resume'].update(gradients=None, between_updates=True)
    saved['exact_resume']['conditions']['number of processes'] = 4
    torch.save(saved, tmp_path / 'four.pth')
    one = cfg_of(shapes, tmp_path / 'one', sampler=SHUFFLED)
    texts = warnings_of(one, tmp_path / 'four.pth')
    assert 'number of processes throughout, but got 1 after 4' in texts[0]
    assert 'multiples of accumulative_counts' in texts[1] and len(texts) == 2


def work(rank, root, folder):
    """One of two processes: a whole training, and the end of it twice more."""
    with one_of(2, rank, folder):

        def cfg(name, **wrapper):
            made = cfg_of(root, folder / name, sampler=SHUFFLED)
            made.train_cfg = dict(BY_EPOCH, max_epochs=3)
            made.launcher = 'pytorch'
            made.model_wrapper_cfg = wrapper or dict(type='mmcr.ActivePathDDP')
            return made

        _, seen = train(cfg('whole'))
        torch.distributed.barrier()
        checkpoint = folder / 'whole' / 'iter_3.pth'
        _, rest = train(cfg('rest'), checkpoint)
        ddp = cfg(
            'ddp',
            type='MMDistributedDataParallel',
            device_ids=None,
            find_unused_parameters=True,
        )
        _, same = train(ddp, checkpoint)
        (folder / f'{rank}.json').write_text(json.dumps([seen, rest, same]))


def test_two_processes(shapes, tmp_path):
    runs = run_pair(work, shapes, tmp_path, SECONDS)
    for seen, rest, same in runs:
        assert len(seen) == 6 and rest == same == seen[3:]
    assert runs[0][0] != runs[1][0]
    for name in ('rest', 'ddp'):
        assert agree(state(tmp_path / name), state(tmp_path / 'whole'))
