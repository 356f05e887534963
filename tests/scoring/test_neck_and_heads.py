"""Norms of neck and heads are calibrated per architecture, as in training."""

import copy

import numpy as np
import pytest
import torch
from mmcv.cnn import ConvModule
from mmcv.transforms import BaseTransform
from mmdet.registry import MODELS
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import BitmapMasks
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from nets import fixed_of, some_archs
from tiny import (
    CLASSES,
    STAGE,
    candidate_evaluator,
    detector_cfg,
    loader_cfg,
    metric_cfg,
)
from torch.nn.modules.batchnorm import _BatchNorm

from mmcr.errors import UserError
from mmcr.scoring.loaders import annotations_first, build_loader, calibration_cfg
from mmcr.scoring.neck_and_heads import neck_and_head_norms
from mmcr.search import Complete, Proposal

pytestmark = pytest.mark.usefixtures('quiet_mmdet')

NORM = dict(type='BN')


def faster_rcnn():
    cfg = detector_cfg(STAGE)
    cfg.neck.norm_cfg = NORM
    cfg.roi_head.bbox_head.update(
        type='ConvFCBBoxHead',
        num_shared_convs=1,
        num_shared_fcs=1,
        conv_out_channels=16,
        norm_cfg=NORM,
    )
    return cfg


def retinanet():
    path, _ = Config._get_cfg_path('mmdet::_base_/models/retinanet_r50_fpn.py', '')
    cfg = Config.fromfile(path).model
    cfg.backbone = detector_cfg(STAGE).backbone
    cfg.neck.update(in_channels=[8, 16, 32, 64], out_channels=16)
    cfg.bbox_head.update(
        in_channels=16,
        feat_channels=16,
        stacked_convs=1,
        norm_cfg=NORM,
        num_classes=len(CLASSES),
    )
    cfg.test_cfg.update(score_thr=0.0, max_per_img=50)
    return cfg


DETECTORS = dict(faster_rcnn=(faster_rcnn, 8 + 1), retinanet=(retinanet, 2))


@pytest.fixture(scope='module', params=DETECTORS)
def detector(request):
    torch.manual_seed(0)
    make, _ = DETECTORS[request.param]
    model = MODELS.build(make())
    model.init_weights()
    return model


def calibrated_alone(candidates, arch):
    """The detector of the fixed network, its norms averaged over training batches."""
    model = copy.deepcopy(candidates.model)
    model.backbone = fixed_of(candidates.backbone, arch)
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    model.train()
    sums = [0, 0]
    for index, data in enumerate(candidates.calibration):
        data = model.data_preprocessor(data)
        for norm in norms:  # a head sees several levels
            norm.reset_running_stats()
            norm.momentum = None
        torch.manual_seed(index)
        with torch.no_grad():
            model(**data, mode='loss')
        seen = [torch.cat([norm.running_mean, norm.running_var]) for norm in norms]
        sums[0] += torch.cat(seen).double() * len(data['inputs'])
        sums[1] += len(data['inputs'])
    values = (sums[0] / sums[1]).float().split([2 * n.num_features for n in norms])
    for norm, value in zip(norms, values):
        mean, var = value.chunk(2)
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(var)
    return model.eval()


def test_scores_are_those_of_detectors_calibrated_alone(detector, shapes):
    candidates = candidate_evaluator(detector, shapes, plain=True)
    detector.train()
    count = len(neck_and_head_norms(detector, detector.backbone))
    assert count in [expected for _, expected in DETECTORS.values()]
    before = copy.deepcopy(detector.state_dict())
    archs = some_archs(candidates.backbone.space, 3)
    trials = candidates.evaluate([Proposal(Complete(arch)) for arch in archs])
    after = detector.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in before.items())
    for arch, trial in zip(archs, trials):
        alone = calibrated_alone(candidates, arch)
        evaluator = Evaluator(metric_cfg(shapes))
        evaluator.dataset_meta = candidates.archval.dataset.metainfo
        count = 0
        for data in candidates.archval:
            with torch.no_grad():
                samples = alone.test_step(data)
            evaluator.process(samples, data)
            count += len(samples)
        assert trial.metrics == evaluator.evaluate(count)
    assert len({trial.score for trial in trials}) == 3


def test_scores_depend_neither_on_the_group_nor_on_chance(detector, shapes):
    candidates = candidate_evaluator(detector, shapes)
    archs = some_archs(candidates.backbone.space, 3)
    proposals = [Proposal(Complete(arch)) for arch in archs]
    proposals.append(Proposal(proposals[1].candidate, (0.0, 0.5)))
    together = candidates.evaluate(proposals)
    candidates.reset()
    candidates.group_size = 1
    torch.manual_seed(5)
    assert candidates.evaluate(proposals[::-1]) == together[::-1]


def test_without_calibration_they_keep_what_training_left(detector, shapes):
    candidates = candidate_evaluator(detector, shapes, calibration_images=0)
    proposal = Proposal(Complete(some_archs(candidates.backbone.space, 1)[0]))
    (trial,) = candidates.evaluate([proposal])
    calibrated = candidate_evaluator(detector, shapes).evaluate([proposal])[0]
    assert trial.score != calibrated.score


def test_images_without_boxes_are_refused(detector, shapes):
    cfg = loader_cfg(shapes, 'archtrain')
    cfg['dataset']['pipeline'].pop(2)
    candidates = candidate_evaluator(detector, shapes)
    candidates.calibration = build_loader(cfg, 'calibration')
    proposal = Proposal(Complete(some_archs(candidates.backbone.space, 1)[0]))
    if not getattr(detector, 'with_rpn', False):  # its head sees whole features
        candidates.evaluate([proposal])
        return
    with pytest.raises(UserError, match='LoadAnnotations'):
        candidates.evaluate([proposal])


def change_with_losses(model):
    model.roi_head.update_hyperparameters = lambda: None  # as of mmdet's DynamicRoIHead
    return loader_cfg


def masks_of_nothing(model):
    model.roi_head.mask_head = ConvModule(16, 16, 1, norm_cfg=NORM)
    return nothing_in_it


def nothing_in_it(root, split):
    cfg = loader_cfg(root, split)
    cfg['dataset']['pipeline'][2] = dict(type=NoObjects)
    return cfg


class NoObjects(BaseTransform):
    def transform(self, results):
        boxes, labels = HorizontalBoxes(torch.zeros(0, 4)), np.zeros(0, np.int64)
        ignored = np.zeros(0, bool)
        masks = BitmapMasks([], *results['img_shape'])
        return {
            **results,
            'gt_bboxes': boxes,
            'gt_bboxes_labels': labels,
            'gt_ignore_flags': ignored,
            'gt_masks': masks,
        }


@pytest.mark.parametrize(
    'prepare, words',
    [
        (change_with_losses, 'those of StandardRoIHead change its thresholds'),
        (masks_of_nothing, 'a batch of 2 calibration images has none'),
    ],
)
def test_what_cannot_be_calibrated_is_refused(shapes, prepare, words):
    model = MODELS.build(faster_rcnn())
    loader = prepare(model)
    candidates = candidate_evaluator(model, shapes)
    candidates.calibration = build_loader(loader(shapes, 'archtrain'), 'calibration')
    proposal = Proposal(Complete(some_archs(candidates.backbone.space, 1)[0]))
    with pytest.raises(UserError, match=words):
        candidates.evaluate([proposal])


@pytest.mark.parametrize('wrapped', [False, True])
def test_boxes_of_calibration_images_move_with_the_image(shapes, wrapped):
    archval = loader_cfg(shapes, 'archval')
    archval['dataset']['pipeline'][1]['scale'] = (192, 192)
    cfg = calibration_cfg(loader_cfg(shapes, 'archtrain'), archval)
    if wrapped:
        cfg['dataset'] = dict(type='mmdet.ConcatDataset', datasets=[cfg['dataset']])
    loader = build_loader(annotations_first(cfg), 'calibration')
    plain = build_loader(loader_cfg(shapes, 'archtrain'), 'calibration')
    for batch, original in zip(loader, plain):
        for sample, other in zip(batch['data_samples'], original['data_samples']):
            assert sample.img_shape == (192, 192)
            boxes, others = (s.gt_instances.bboxes.tensor for s in (sample, other))
            torch.testing.assert_close(boxes, 2 * others)
