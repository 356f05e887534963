"""What a user sees while a supernet trains; mmengine's hooks beside ours."""

import json
from importlib.util import find_spec
from math import inf, nan
from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from nets import equal
from tiny import STAGE, archval_cfg, build_detector, candidate_evaluator, train_cfg

from mmcr.errors import UserError
from mmcr.search import Complete, Proposal
from mmcr.space import Arch, Choice, SearchSpace, stage_arch
from mmcr.training import PathLogHook
from mmcr.training.path_log_hook import PathRecord

pytestmark = pytest.mark.usefixtures('quiet_mmdet')

STEPS = 6
LARGE = [2, 2, 2, 3]


class Losses(Hook):
    """Notes every iteration's path and loss."""

    def __init__(self):
        self.seen = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.seen.append((runner.model.backbone.arch, outputs['loss'].item()))


def run(cfg, *hooks):
    runner = Runner.from_cfg(cfg)
    for hook in hooks:
        runner.register_hook(hook, priority='LOWEST')
    runner.train()
    return runner


def logged_cfg(root, folder, iterations=STEPS, **more):
    cfg = train_cfg(root, folder, iterations=iterations, **more)
    cfg.custom_hooks += [
        dict(type='mmcr.ExactResumeHook'),
        dict(type='mmcr.PathLogHook', interval=2, table_interval=4),
    ]
    return cfg


def scalars_of(runner):
    """What mmengine's own backend wrote that is ours, by step."""
    (path,) = Path(runner.work_dir).glob('*/vis_data/scalars.json')
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return {
        line.pop('step'): line
        for line in lines
        if any(tag.startswith('path') for tag in line)
    }


def local(cfg):
    cfg.visualizer = dict(
        type='Visualizer', vis_backends=[dict(type='LocalVisBackend')]
    )
    return cfg


def test_a_record_by_hand():
    space = SearchSpace([Choice('a', (1, 2)), Choice('b', (3,))])
    record = PathRecord(space, window=2)
    for value, loss in ((1, inf), (1, 4.0), (2, nan), (1, 2.0), (1, 5.0), (1, 0.0)):
        record.add(Arch({'a': value, 'b': 3}), loss)
    # of finite ones equal weights up to the window: 4, 3; then half of each: 4, 2
    assert record.scalars() == {
        'path_steps/a/1': 5,
        'path_loss/a/1': 2.0,
        'path_steps/a/2': 1,
        'path_steps/b/3': 6,
        'path_loss/b/3': 2.0,
    }
    assert record.table() == '  a: 1: 5x 2.0000, 2: 1x\n  b: 3: 6x 2.0000'
    resumed = PathRecord(space, window=2)
    resumed.go_on(record.steps, record.losses, record.finite)
    resumed.add(Arch({'a': 2, 'b': 3}), 5.0)
    assert resumed.scalars()['path_loss/a/2'] == 5


def test_a_record_goes_on_where_the_choices_are_the_same():
    old = PathRecord(SearchSpace([Choice('a', (1, 2)), Choice('b', (3,))]), window=2)
    old.add(Arch({'a': 2, 'b': 3}), 4.0)
    new = PathRecord(SearchSpace([Choice('a', (2, 5)), Choice('c', (3,))]), window=2)
    new.go_on(old.steps, old.losses)
    assert new.steps == {'a': {2: 1, 5: 0}, 'c': {3: 0}}
    assert new.losses == {'a': {2: 4.0, 5: 0.0}, 'c': {3: 0.0}}


@pytest.fixture(scope='module')
def logged(shapes, tmp_path_factory):
    losses = Losses()
    folder = tmp_path_factory.mktemp('logged')
    cfg = local(logged_cfg(shapes, folder, **archval(shapes)))
    cfg.log_level = 'INFO'
    if find_spec('tensorboard'):
        cfg.visualizer.vis_backends.append(dict(type='TensorboardVisBackend'))
    return run(cfg, losses), losses.seen


def test_paths_steps_and_losses_reach_the_visualizer(logged):
    runner, seen = logged
    scalars = scalars_of(runner)
    assert list(scalars) == [2, 4, 6]
    assert len({arch for arch, _ in seen}) > 2
    for step, found in scalars.items():
        drawn = seen[step - 1][0]
        assert all(found[f'path/{name}'] == value for name, value in drawn.items())
        for choice in runner.model.backbone.space.choices:
            for value in choice.values:
                losses = [x for arch, x in seen[:step] if arch[choice.name] == value]
                tag = f'{choice.name}/{value}'
                assert found[f'path_steps/{tag}'] == len(losses)
                if losses:
                    mean = sum(losses) / len(losses)
                    assert found[f'path_loss/{tag}'] == pytest.approx(mean)
                else:
                    assert f'path_loss/{tag}' not in found


def test_they_reach_tensorboard_beside_the_scores_of_named_paths(logged):
    events = pytest.importorskip(
        'tensorboard.backend.event_processing.event_accumulator'
    )
    (folder,) = Path(logged[0].work_dir).glob('*/vis_data')
    board = events.EventAccumulator(str(folder))
    board.Reload()
    for step, found in scalars_of(logged[0]).items():
        for tag, value in found.items():
            (shown,) = (each.value for each in board.Scalars(tag) if each.step == step)
            assert shown == pytest.approx(value)
    for name in ('small', 'large'):
        scores = [each.value for each in board.Scalars(f'archval/{name}/bbox_mAP')]
        assert len(scores) == 2 and all(0 <= score <= 1 for score in scores)


def test_the_text_log_has_tables_and_is_otherwise_as_before(logged):
    runner, seen = logged
    (log,) = Path(runner.work_dir).glob('*/*.log')
    text = log.read_text()
    assert text.count('Paths of 4 iterations') == text.count('Paths of 6 iter') == 1
    last = text.split('Paths of 6 iterations')[1]
    assert f'the last with {seen[-1][0]}' in last
    steps = sum(arch['stage1'] == 2 for arch, _ in seen)
    (line,) = (each for each in last.splitlines() if each.startswith('  stage1: '))
    assert f'2: {steps}x' in line and len(line.split(', ')) == 2
    assert not any(
        'path' in line for line in text.splitlines() if 'Iter(train)' in line
    )


def test_a_resumed_run_goes_on_counting(logged, shapes, tmp_path):
    first, _ = logged
    cfg = local(logged_cfg(shapes, tmp_path))
    cfg.update(load_from=f'{first.work_dir}/iter_3.pth', resume=True)
    whole = scalars_of(first)
    assert scalars_of(run(cfg)) == {step: whole[step] for step in (4, 6)}


def test_a_new_run_from_old_weights_counts_from_zero(logged, shapes, tmp_path):
    cfg = local(logged_cfg(shapes, tmp_path, iterations=2))
    cfg.load_from = f'{logged[0].work_dir}/iter_3.pth'
    (found,) = scalars_of(run(cfg)).values()
    assert found['path_steps/stage3/2'] == 2


def archval(root, interval=3):
    archs = dict(small=[1, 1, 2, 2], large=LARGE)
    return dict(archval_cfg(root, archs), val_interval=interval)


def test_ema_scores_the_averages_and_resumes_exactly(shapes, tmp_path):
    def cfg(name, **more):
        made = logged_cfg(shapes, tmp_path / name, **more)
        made.custom_hooks.append(dict(type='EMAHook', momentum=0.5))
        return made

    runner = run(cfg('whole', **archval(shapes)))
    rest = cfg('rest')
    rest.update(load_from=f'{tmp_path}/whole/iter_3.pth', resume=True)
    run(rest)
    one, other = (
        torch.load(tmp_path / name / 'iter_6.pth', weights_only=False)
        for name in ('whole', 'rest')
    )
    averages, trained = one['state_dict'], one['ema_state_dict']
    assert equal(averages, other['state_dict'])
    assert equal(trained, other['ema_state_dict'])
    name = 'rpn_head.rpn_conv.weight'
    assert not averages[name].equal(trained[f'module.{name}'])

    # what the log calls the score is that of the averages
    model = build_detector(STAGE)
    model.load_state_dict(averages)
    candidates = candidate_evaluator(model, shapes, calibration_images=5)
    (trial,) = candidates.evaluate([Proposal(Complete(stage_arch(LARGE)))])
    score = runner.message_hub.get_scalar('val/archval/large/bbox_mAP').current()
    assert score == trial.score


def test_early_stopping_ends_on_a_named_path(shapes, tmp_path):
    cfg = logged_cfg(shapes, tmp_path, **archval(shapes, interval=1))
    cfg.custom_hooks.append(
        dict(
            type='EarlyStoppingHook',
            monitor='archval/large/bbox_mAP',
            min_delta=2.0,  # no AP grows that much
            patience=2,
        )
    )
    assert run(cfg).iter == 3


@pytest.mark.parametrize(
    'option', (dict(window=0), dict(interval='x'), dict(table_interval=-1))
)
def test_intervals_that_are_none_are_refused(option):
    name = next(iter(option))
    with pytest.raises(UserError, match=f'^{name} must be an integer of at least'):
        PathLogHook(**option)
