"""Heads that synchronise in the calibration forward, on unequally many batches."""

import copy
import json

import pytest
import torch
from mmdet.registry import MODELS
from nets import some_archs
from pairs import one_of, run_pair

from mmcr.search import Complete, Proposal

from .shrunk import candidates_of, host_cfg

pytestmark = [pytest.mark.usefixtures('quiet_mmdet'), pytest.mark.slow]

SECONDS = 240  # a hang ends here
#: By a loss of the head, and by one of the RPN; with norms in the neck or a head.
HEADS = 'condinst/condinst_r50_fpn_ms-poly-90k_coco_instance', 'centernet2'


def centernet2(root, folder):
    """Two stages behind a CenterNet: mmdet's projects have it, in these parts."""
    cfg = host_cfg('faster_rcnn/faster-rcnn_r50_fpn_1x_coco', root, folder)
    one_stage = host_cfg(
        'centernet/centernet-update_r50-caffe_fpn_ms-1x_coco', root, folder
    ).model
    cfg.model.neck = one_stage.neck
    cfg.model.rpn_head = dict(one_stage.bbox_head, num_classes=1)
    cfg.model.train_cfg.rpn = one_stage.get('train_cfg')
    extractor = cfg.model.roi_head.bbox_roi_extractor
    extractor.update(featmap_strides=[8, 16, 32, 64, 128])
    return cfg


def scores(root, folder):
    """Of a path of each detector, with norms in the neck to calibrate."""
    found = []
    for name in HEADS:
        if name == 'centernet2':
            cfg = centernet2(root, folder)
        else:
            cfg = host_cfg(name, root, folder)
        cfg.model.neck.norm_cfg = dict(type='BN')
        torch.manual_seed(0)
        model = MODELS.build(copy.deepcopy(cfg.model))
        model.init_weights()
        candidates = candidates_of(cfg, model, root)
        (arch,) = some_archs(model.backbone.space, 1)
        found.append(candidates.evaluate([Proposal(Complete(arch))])[0].metrics)
    return found


def work(rank, root, folder):
    with one_of(2, rank, folder):
        (folder / f'{rank}.json').write_text(json.dumps(scores(root, folder)))


def test_two_processes_score_as_one_does(shapes, tmp_path):
    """Three calibration batches: two on one rank, one on the other."""
    first, second = run_pair(work, shapes, tmp_path, SECONDS)
    assert first == second == scores(shapes, tmp_path)
