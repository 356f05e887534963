import copy

import numpy as np
import pytest
import torch
from mmengine.evaluator import Evaluator
from mmengine.runner import Runner
from nets import calibrate_alone, equal, fixed_of, snapshot, some_archs
from tiny import (
    IOU_THRESHOLDS,
    OPERATION,
    STAGE,
    build_detector,
    candidate_evaluator,
    loader_cfg,
    metric_cfg,
    runner_cfg,
)

from mmcr.errors import UserError
from mmcr.search import Complete, Partial, Proposal
from mmcr.space import Arch, stage_arch

pytestmark = pytest.mark.usefixtures('quiet_mmdet')

KINDS = {'stage': STAGE, 'operation': OPERATION}


@pytest.fixture(scope='module', params=KINDS)
def scored(request, shapes):
    """An evaluator, mixed proposals, and their trials when scored together."""
    candidates = candidate_evaluator(
        build_detector(KINDS[request.param]), shapes, num_minibatches=2
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


def fixed_detector(candidates, arch):
    """A detector of the fixed network `arch`, calibrated by itself."""
    model = copy.deepcopy(candidates.model)
    model.backbone = fixed_of(candidates.backbone, arch)
    calibrate_alone(
        model.backbone,
        [model.data_preprocessor(data)['inputs'] for data in candidates.calibration],
    )
    model.eval()
    return model


def alone(candidates, proposal, root):
    """The metrics of a proposal, by fixed networks and mmdet's own steps."""
    batches = list(candidates.archval)
    evaluator = Evaluator(metric_cfg(root))
    evaluator.dataset_meta = candidates.archval.dataset.metainfo
    start, stop = (round(end * len(batches)) for end in proposal.portion)
    models, count = {}, 0
    for j in range(start, stop):
        minibatch = j * candidates.num_minibatches // len(batches)
        arch = proposal.candidate.arch_for(minibatch)
        if arch not in models:
            models[arch] = fixed_detector(candidates, arch)
        with torch.no_grad():
            samples = models[arch].test_step(batches[j])
        evaluator.process(samples, batches[j])
        count += len(samples)
    return evaluator.evaluate(count)


def test_scores_are_those_of_the_fixed_networks(scored, shapes):
    candidates, proposals, trials = scored
    assert [trial.proposal for trial in trials] == proposals
    for trial in trials:
        assert trial.metrics == alone(candidates, trial.proposal, shapes)
        assert trial.score == trial.metrics['coco/bbox_mAP'] > 0
    assert len({trial.score for trial in trials}) == len(trials)


def test_scores_depend_on_no_other_candidate(scored):
    candidates, proposals, together = scored
    for proposal, trial in zip(proposals, together):
        assert candidates.evaluate([proposal]) == [trial]
    assert candidates.evaluate(proposals[::-1]) == together[::-1]
    assert candidates.evaluate(proposals[:2] + proposals[:1]) == [
        *together[:2],
        together[0],
    ]


@pytest.mark.parametrize('kind', KINDS)
def test_mmdets_test_loop_gives_the_fixed_network_the_same_score(
    kind, shapes, tmp_path
):
    candidates = candidate_evaluator(build_detector(KINDS[kind], seed=1), shapes)
    arch = some_archs(candidates.backbone.space, 1)[0]
    (trial,) = candidates.evaluate([Proposal(Complete(arch))])

    torch.save(
        dict(state_dict=fixed_detector(candidates, arch).state_dict()),
        tmp_path / 'fixed.pth',
    )
    backbone = candidates.backbone.arch_cfg(arch)
    assert 'supernet' not in backbone
    runner = Runner.from_cfg(
        runner_cfg(
            tmp_path,
            backbone,
            load_from=str(tmp_path / 'fixed.pth'),
            test_cfg=dict(type='TestLoop'),
            test_dataloader=loader_cfg(shapes, 'archval'),
            test_evaluator=[
                metric_cfg(shapes),
                metric_cfg(shapes, 'CocoMetric', prefix='mmdet'),
            ],
        )
    )
    # mmdet's metric takes an array only, which no config can hold
    runner.test_loop.evaluator.metrics[1].iou_thrs = np.array(IOU_THRESHOLDS)
    metrics = runner.test()
    assert trial.metrics == {k: v for k, v in metrics.items() if k.startswith('coco/')}
    for name in ('mAP', 'mAP_s', 'mAP_m'):
        assert metrics[f'mmdet/bbox_{name}'] == float(
            f'{trial.metrics[f"coco/bbox_{name}"]:.3f}'
        )
    assert metrics['mmdet/bbox_mAP'] > 0.01


@pytest.mark.parametrize('fails', (False, True))
def test_the_detector_comes_back_as_it_was(scored, fails, monkeypatch):
    candidates, proposals, _ = scored
    model = candidates.model
    model.train(), model.neck.eval()
    arch = some_archs(candidates.backbone.space, 5)[-1]
    candidates.backbone.set_arch(arch)
    state = snapshot(model)
    modes = [module.training for module in model.modules()]
    children = list(model.named_children())
    if fails:
        monkeypatch.setattr(candidates.evaluator, 'process', lambda **_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            candidates.evaluate(proposals)
    else:
        candidates.evaluate(proposals)
    assert equal(model.state_dict(), state)
    assert [module.training for module in model.modules()] == modes
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
    arch = candidates.backbone.arch
    for portion, expected in (
        ((0, 0.5), [2, 2]),
        ((0.5, 1), [2, 1]),
        ((0.25, 1), [2, 2, 1]),
    ):
        sizes.clear()
        candidates.evaluate([Proposal(Complete(arch), portion)])
        assert sizes == expected
    with pytest.raises(UserError, match='0 images'):
        candidates.evaluate([Proposal(Complete(arch), (0.3, 0.45))])


def test_candidates_of_one_path_share_the_head(shapes):
    model = build_detector(STAGE)
    candidates = candidate_evaluator(model, shapes)
    calls = []
    model.neck.register_forward_pre_hook(lambda *_: calls.append(1))
    arch = stage_arch((1, 2, 2, 3))
    a, b = candidates.evaluate([Proposal(Complete(arch))] * 2)
    assert a == b and len(calls) == 4


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
    seen = []
    candidates.evaluate(proposals[:1], seen.append)
    assert seen == sorted(seen) and len(set(seen)) == len(seen) == 3 + 4
    assert seen[0] == 0 and 0.8 < seen[-1] <= 1
