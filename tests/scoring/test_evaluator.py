import logging

import numpy as np
import pytest
import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger
from mmengine.runner import Runner
from nets import equal, snapshot, some_archs
from tiny import (
    IOU_THRESHOLDS,
    OPERATION,
    STAGE,
    alone,
    build_detector,
    candidate_evaluator,
    fixed_detector,
    loader_cfg,
    metric_cfg,
    runner_cfg,
)

from mmcr.errors import UserError
from mmcr.report.slices import Slices
from mmcr.scoring.evaluator import compute
from mmcr.search import Complete, Partial, Proposal
from mmcr.space import Arch

pytestmark = pytest.mark.usefixtures('quiet_mmdet')

# RoIAlign as a look-up and another memory format round otherwise, and a box of an
# untrained detector, on seven images, may come or go.
TOLERANCE = 0.01
KINDS = {'stage': STAGE, 'operation': OPERATION}


@pytest.fixture(scope='module', params=KINDS)
def scored(request, shapes):
    """An evaluator, mixed proposals, and their trials when scored together."""
    candidates = candidate_evaluator(
        build_detector(KINDS[request.param]), shapes, num_minibatches=2, plain=True
    )
    space = candidates.backbone.space
    first = space.choices[0]
    proposals = [Proposal(Complete(arch)) for arch in some_archs(space, 3)]
    proposals += [
        Proposal(Partial(Arch({first.name: value}), space, 0))
        for value in first.values[:2]
    ]
    proposals.append(Proposal(proposals[0].candidate, (0.5, 1.0)))
    return candidates, proposals, candidates.evaluate(proposals)


def test_scores_are_those_of_the_fixed_networks(scored, shapes):
    candidates, proposals, trials = scored
    assert [trial.proposal for trial in trials] == proposals
    for trial in trials:
        assert trial.metrics == alone(candidates, trial.proposal, shapes)
        assert trial.score == trial.metrics['coco/bbox_mAP'] > 0
    assert len({trial.score for trial in trials}) == len(trials)


@pytest.mark.parametrize('kind', KINDS)
def test_without_calibration_paths_run_on_the_supernets_statistics(kind, shapes):
    candidates = candidate_evaluator(
        build_detector(KINDS[kind]), shapes, calibration_images=0, plain=True
    )
    torch.manual_seed(0)
    for name, buffer in candidates.backbone.named_buffers():
        if name.endswith('running_var'):  # as if it had been trained
            buffer.uniform_(0.5, 2.0)
    proposal = Proposal(Complete(some_archs(candidates.backbone.space, 1)[0]))
    (trial,) = candidates.evaluate([proposal])
    assert trial.metrics == alone(candidates, proposal, shapes)
    calibrated = candidate_evaluator(candidates.model, shapes, plain=True)
    assert trial.score != calibrated.evaluate([proposal])[0].score


def test_scores_depend_on_no_other_candidate(scored):
    candidates, proposals, together = scored
    for proposal, trial in zip(proposals, together):
        assert candidates.evaluate([proposal]) == [trial]
    assert candidates.evaluate(proposals[::-1]) == together[::-1]
    twice = candidates.evaluate(proposals[:2] + proposals[:1])
    assert twice == together[:2] + together[:1]


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('plain', (False, True))
def test_mmdets_test_loop_gives_the_fixed_network_the_same_score(
    kind, plain, shapes, tmp_path
):
    model = build_detector(KINDS[kind], seed=1)
    candidates = candidate_evaluator(model, shapes, plain=plain)
    arch = some_archs(candidates.backbone.space, 1)[0]
    (trial,) = candidates.evaluate([Proposal(Complete(arch))])

    weights = fixed_detector(candidates, arch).state_dict()
    torch.save(dict(state_dict=weights), tmp_path / 'fixed.pth')
    backbone = candidates.backbone.arch_cfg(arch)
    assert 'supernet' not in backbone
    theirs = metric_cfg(shapes, 'CocoMetric', prefix='mmdet')
    cfg = runner_cfg(
        tmp_path,
        backbone,
        load_from=str(tmp_path / 'fixed.pth'),
        test_cfg=dict(type='TestLoop'),
        test_dataloader=loader_cfg(shapes, 'archval'),
        test_evaluator=[metric_cfg(shapes), theirs],
    )
    runner = Runner.from_cfg(cfg)
    # mmdet's metric takes an array only, which no config can hold
    runner.test_loop.evaluator.metrics[1].iou_thrs = np.array(IOU_THRESHOLDS)
    metrics = runner.test()
    ours = {k: v for k, v in metrics.items() if k.startswith('coco/')}
    assert trial.metrics == (ours if plain else pytest.approx(ours, abs=TOLERANCE))
    for name in ('mAP', 'mAP_s', 'mAP_m'):
        rounded = float(f'{metrics[f"coco/bbox_{name}"]:.3f}')
        assert metrics[f'mmdet/bbox_{name}'] == rounded
    assert metrics['mmdet/bbox_mAP'] > 0.01


@pytest.mark.parametrize('fails', (False, True))
def test_the_detector_comes_back_as_it_was(scored, fails, monkeypatch):
    candidates, proposals, _ = scored
    model = candidates.model
    model.train(), model.neck.eval()
    arch = some_archs(candidates.backbone.space, 5)[-1]
    candidates.backbone.set_arch(arch)
    candidates.backbone.bn1.momentum = 0.25
    state = snapshot(model)
    modes = [(m.training, getattr(m, 'momentum', None)) for m in model.modules()]
    children = list(model.named_children())
    if fails:
        monkeypatch.setattr(candidates.evaluator, 'process', lambda **_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            candidates.evaluate(proposals)
    else:
        candidates.evaluate(proposals)
    assert equal(model.state_dict(), state)
    assert modes == [
        (m.training, getattr(m, 'momentum', None)) for m in model.modules()
    ]
    assert list(model.named_children()) == children
    assert candidates.backbone.arch == arch
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


@pytest.mark.parametrize(
    'minibatches, of_batch',
    [(1, [0, 0, 0, 0]), (2, [0, 0, 1, 1]), (3, [0, 0, 1, 2]), (10, [0, 1, 2, 3])],
)
def test_each_minibatch_runs_its_own_completion(shapes, minibatches, of_batch):
    model = build_detector(OPERATION)
    candidates = candidate_evaluator(model, shapes, num_minibatches=minibatches)
    ran = []
    model.neck.register_forward_pre_hook(
        lambda *_: ran.append(candidates.backbone.arch)
    )
    partial = Partial(Arch({'stage1.0': 3}), candidates.backbone.space, 0)
    candidates.evaluate([Proposal(partial)])
    assert ran == [partial.arch_for(j) for j in of_batch]
    assert all(arch['stage1.0'] == 3 for arch in ran)


def test_a_portion_is_a_slice_of_the_batches(shapes):
    model = build_detector(STAGE)
    candidates = candidate_evaluator(model, shapes)
    sizes = []
    model.neck.register_forward_pre_hook(
        lambda _, inputs: sizes.append(len(inputs[0][0]))
    )
    one = Complete(candidates.backbone.arch)
    for portion, expected in (
        ((0, 0.5), [2, 2]),
        ((0.5, 1), [2, 1]),
        ((0.25, 1), [2, 2, 1]),
    ):
        sizes.clear()
        # those of one path share the head
        a, b = candidates.evaluate([Proposal(one, portion)] * 2)
        assert a == b and sizes == expected
    with pytest.raises(UserError, match='4 batches have none .* from 0.3 to 0.45'):
        candidates.evaluate([Proposal(one, (0.3, 0.45))])


def test_an_unknown_score_is_refused(shapes):
    candidates = candidate_evaluator(
        build_detector(STAGE), shapes, score='coco/segm_mAP'
    )
    with pytest.raises(UserError, match=r"score.*'coco/bbox_mAP'.*'coco/segm_mAP'"):
        candidates.evaluate([Proposal(Complete(candidates.backbone.arch))])


def test_a_fixed_network_is_refused(shapes):
    with pytest.raises(UserError, match='must be a supernet.*CRResNet'):
        candidate_evaluator(build_detector({}), shapes)


def test_progress_goes_from_0_to_1(scored):
    candidates, proposals, _ = scored
    candidates.reset()
    for batches in (3 + 4, 4):  # the second time nothing is left to calibrate
        seen = []
        candidates.evaluate(proposals[:1], seen.append)
        assert seen == sorted(seen) and len(set(seen)) == len(seen) == batches
        assert seen[0] == 0 and 0.7 < seen[-1] <= 1
    seen.clear()
    candidates.group_size = 2
    candidates.evaluate(proposals, seen.append)
    assert seen == sorted(seen) and seen[-1] > 0.9
    candidates.group_size = 64


def test_groups_change_nothing(scored, monkeypatch):
    candidates, proposals, together = scored
    sizes = []
    run = candidates._run
    monkeypatch.setattr(
        candidates,
        '_run',
        lambda group, *args: sizes.append(len(group)) or run(group, *args),
    )
    for size, groups in ((1, 6), (2, 3), (6, 1)):
        monkeypatch.setattr(candidates, 'group_size', size)
        sizes.clear()
        assert candidates.evaluate(proposals) == together
        assert len(sizes) == groups


def test_a_part_of_archval_has_its_part_of_the_calibration(shapes):
    candidates = candidate_evaluator(build_detector(STAGE), shapes)
    arch = candidates.backbone.arch
    sampler = candidates.calibration.sampler
    for total, batch_size, portion, expected in (
        (100, 8, (0, 1), 100),
        (100, 8, (0, 0.25), 25),
        (100, 8, (0.3, 0.4), 10),
        (100, 8, (0, 1 / 64), 4),
        (100, 1, (0, 1 / 64), 32),
        (3, 2, (0, 1 / 64), 3),
    ):
        sampler.num_batches, sampler.batch_size = total, batch_size
        proposal = Proposal(Complete(arch), portion)
        assert candidates._num_calibration(proposal) == expected


class Sum(BaseMetric):
    """Of numbers; logs a table."""

    def process(self, data_batch, data_samples):
        self.results.extend(data_samples)

    def compute_metrics(self, results):
        MMLogger.get_current_instance().info('a table')
        return dict(sum=sum(results))


def test_values_carry_their_metrics_prefix_and_no_table_is_logged(caplog):
    metrics = [Sum(prefix='a'), Sum()]
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(caplog.handler)
    try:
        values = compute(metrics, [[1, 2], [3]])
        logger.info('after')
    finally:
        logger.removeHandler(caplog.handler)
        logger.setLevel(level)
    assert values == {'a/sum': 3, 'sum': 3}
    assert [record.message for record in caplog.records] == ['after']


def test_an_error_of_a_metric_arrives(shapes, monkeypatch):
    candidates = candidate_evaluator(build_detector(STAGE), shapes)
    metric = candidates.evaluator.metrics[0]
    monkeypatch.setattr(metric, 'compute_metrics', lambda results: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        candidates.evaluate([Proposal(Complete(candidates.backbone.arch))])


@pytest.mark.parametrize('option', ['group_size', 'num_minibatches'])
def test_a_limit_that_is_none_is_refused(shapes, option):
    with pytest.raises(UserError, match=f'{option} must be .* at least 1, but got 0'):
        candidate_evaluator(build_detector(STAGE), shapes, **{option: 0})


def test_slices_are_equal_parts(shapes):
    candidates = candidate_evaluator(build_detector(STAGE), shapes)
    arch = candidates.backbone.arch
    candidates.archval.sampler.num_batches = 77
    for i in range(11):  # 3 / 11 * 77 is above 21
        proposal = Proposal(Complete(arch), (i / 11, (i + 1) / 11))
        assert list(candidates._plan([proposal])) == [*range(7 * i, 7 * i + 7)]
        images = Slices(77).words((proposal.portion,))
        assert images.endswith('7 of 77 images)' if i else 'first 7 of 77 images')
