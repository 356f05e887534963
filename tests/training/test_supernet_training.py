"""Sampling and archval while a supernet trains."""

from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from nets import on_path, snapshot
from tiny import (
    OPERATION,
    STAGE,
    archval_cfg,
    build_detector,
    candidate_evaluator,
    train_cfg,
)

from mmcr.errors import UserError
from mmcr.search import Complete, Proposal
from mmcr.space import stage_arch
from mmcr.training import ArchSamplingHook

pytestmark = pytest.mark.usefixtures('quiet_mmdet')

ARCHS = dict(small=dict(stage1=1, stage2=1, stage3=2, stage4=2), large=[2, 2, 2, 3])


class Recorder(Hook):
    """Notes the path and what each iteration changed."""

    def __init__(self):
        self.archs, self.changed = [], []

    def before_train_iter(self, runner, *args, **kwargs):
        self.before = snapshot(runner.model.backbone)

    def after_train_iter(self, runner, *args, **kwargs):
        backbone = runner.model.backbone
        self.archs.append(backbone.arch)
        self.changed.append(
            {
                name
                for name, parameter in backbone.named_parameters()
                if not torch.equal(self.before[name], parameter)
            }
        )


def train(cfg):
    runner = Runner.from_cfg(cfg)
    recorder = Recorder()
    runner.register_hook(recorder, priority='LOWEST')
    runner.train()
    return runner, recorder


@pytest.fixture(scope='module')
def trained(shapes, tmp_path_factory):
    """A run of four iterations, with archval after the last."""
    cfg = train_cfg(
        shapes,
        tmp_path_factory.mktemp('train'),
        iterations=4,
        val_interval=4,
        **archval_cfg(shapes, ARCHS),
    )
    cfg.default_hooks.checkpoint.save_best = 'archval/large/bbox_mAP'
    return train(cfg)


def test_every_iteration_trains_the_path_drawn_and_no_other(trained):
    runner, recorder = trained
    space = runner.model.backbone.space
    hook = ArchSamplingHook(seed=7)
    assert recorder.archs == [hook.draw(space, i) for i in range(4)]
    assert len(set(recorder.archs)) > 2
    for arch, changed in zip(recorder.archs, recorder.changed):
        assert changed == on_path(runner.model.backbone, arch)


@pytest.mark.parametrize('resume, seed', [(True, 7), (True, 9), (False, 9)])
def test_a_resumed_run_keeps_its_stream_and_a_new_one_has_its_own(
    trained, shapes, tmp_path, resume, seed
):
    first, recorder = trained
    cfg = train_cfg(shapes, tmp_path, iterations=4)
    cfg.update(load_from=f'{first.work_dir}/iter_2.pth', resume=resume)
    cfg.custom_hooks[0].seed = seed
    runner, found = train(cfg)
    own = ArchSamplingHook(seed=seed)
    new = [own.draw(runner.model.backbone.space, i) for i in range(4)]
    assert found.archs == (recorder.archs[2:] if resume else new)
    assert new[:2] != recorder.archs[2:]


@pytest.mark.parametrize('resume', (True, False))
def test_weights_of_another_supernet_are_refused(trained, shapes, tmp_path, resume):
    first, _ = trained
    cfg = train_cfg(shapes, tmp_path, dict(STAGE, share='prefix'), iterations=4)
    cfg.update(load_from=f'{first.work_dir}/iter_2.pth', resume=resume)
    with pytest.raises(UserError, match='another share='):
        Runner.from_cfg(cfg).train()


def test_weights_of_a_plain_detector_start_the_rest(shapes, tmp_path):
    weights = build_detector({}).state_dict()
    torch.save(dict(state_dict=weights, meta={}), tmp_path / 'plain.pth')
    cfg = train_cfg(shapes, tmp_path, iterations=1)
    cfg.load_from = f'{tmp_path}/plain.pth'
    runner = Runner.from_cfg(cfg)
    runner.load_or_resume()
    loaded = runner.model.state_dict()
    outside = [key for key in weights if not key.startswith('backbone.')]
    assert outside and all(torch.equal(loaded[k], weights[k]) for k in outside)


@pytest.mark.parametrize(
    'hook',
    (
        dict(type='CheckpointHook', save_best='archval/baseline/bbox_mAP'),
        dict(type='CheckpointHook', save_best=['archval/small/bbox_mAP', 'bbox_mAP']),
        dict(type='CheckpointHook', save_best='archval/small/coco/bbox_mAP'),
        dict(type='EarlyStoppingHook', monitor='archval/small', rule='greater'),
    ),
)
def test_metrics_that_will_not_come_are_refused_at_once(shapes, tmp_path, hook):
    cfg = train_cfg(
        shapes, tmp_path, iterations=4, val_interval=4, **archval_cfg(shapes, ARCHS)
    )
    cfg.custom_hooks.append(hook)
    with pytest.raises(UserError, match='archval/small/bbox_mAP, .* but got'):
        Runner.from_cfg(cfg).train()


def test_schedulers_that_wait_for_such_metrics(shapes, tmp_path):
    cfg = train_cfg(
        shapes, tmp_path, iterations=4, val_interval=4, **archval_cfg(shapes, ARCHS)
    )
    plateau = dict(type='ReduceOnPlateauLR', monitor='coco/bbox_mAP', rule='greater')
    cfg.param_scheduler = plateau
    with pytest.raises(UserError, match='ReduceOnPlateauLR must wait .* but got'):
        Runner.from_cfg(cfg).train()


def test_sampling_needs_a_supernet(shapes, tmp_path):
    with pytest.raises(UserError, match='must be a supernet'):
        Runner.from_cfg(train_cfg(shapes, tmp_path, {})).train()


def test_archval_metrics(trained, shapes):
    runner, _ = trained
    metrics = runner.val_loop.run()
    names = [f'bbox_mAP{suffix}' for suffix in ('', '_50', '_75', '_s', '_m', '_l')]
    assert set(metrics) == {
        f'archval/{arch}/{name}' for arch in ARCHS for name in names
    }
    archs = [stage_arch(blocks) for blocks in ((1, 1, 2, 2), (2, 2, 2, 3))]
    candidates = candidate_evaluator(runner.model, shapes, calibration_images=5)
    small, large = candidates.evaluate([Proposal(Complete(arch)) for arch in archs])
    assert metrics['archval/small/bbox_mAP'] == small.score
    assert metrics['archval/large/bbox_mAP'] == large.score != small.score
    # and they were computed during training
    assert runner.message_hub.get_info('best_score') == large.score
    assert Path(runner.work_dir, 'best_archval_large_bbox_mAP_iter_4.pth').is_file()


@pytest.mark.parametrize(
    'backbone, archs, error',
    [
        (STAGE, dict(odd=dict(stage1=3, stage2=1, stage3=2, stage4=2)), 'stage1=3'),
        (STAGE, dict(part=dict(stage1=1)), 'stage2 is missing'),
        (STAGE, dict(short=[1, 1, 2]), r'a value for each.*\[1, 1, 2\]'),
        (OPERATION, dict(far=4), '4'),
    ],
)
def test_archs_outside_the_space_are_refused(shapes, tmp_path, backbone, archs, error):
    runner = Runner.from_cfg(
        train_cfg(shapes, tmp_path, backbone, **archval_cfg(shapes, archs))
    )
    name = next(iter(archs))
    with pytest.raises(UserError, match=f'val_cfg.archs.* {name} .*{error}'):
        runner.train()


def test_one_value_for_all_choices(shapes, tmp_path):
    runner = Runner.from_cfg(
        train_cfg(
            shapes, tmp_path, OPERATION, **archval_cfg(shapes, dict(plain=1, wide=3))
        )
    )
    assert [set(arch.values()) for arch in runner.val_loop.archs.values()] == [{1}, {3}]
