"""A detector, a data set and a runner that are as small as they may be."""

import copy
import functools
import itertools
from pathlib import Path

import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from nets import calibrate_alone, fixed_of
from torch import nn

from mmcr.data import CLASSES, write_shapes
from mmcr.scoring import CandidateEvaluator
from mmcr.scoring.loaders import build_loader

STAGE = dict(
    supernet='stage',
    stage_choices=dict(stage1=(1, 2), stage2=(1, 2), stage3=(2,), stage4=(2, 3)),
)
OPERATION = dict(supernet='operation', stage_blocks=(1, 1, 1, 1))
IOU_THRESHOLDS = [0.05, 0.1, 0.2, 0.3]
_names = (f'test{i}' for i in itertools.count())


def write_data(root: Path) -> Path:
    """archtrain and archval, with a last batch that is not full."""
    for split, count in (('archtrain', 6), ('archval', 7)):
        write_shapes(root, count, (96, 96), seed=3, split=split)
    return root


def loader_cfg(root: Path, split: str, batch_size: int = 2) -> dict:
    pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='Resize', scale=(96, 96), keep_ratio=True),
        dict(type='LoadAnnotations', with_bbox=True),
        dict(
            type='PackDetInputs',
            meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
        ),
    ]
    return dict(
        batch_size=batch_size,
        num_workers=0,
        sampler=dict(type='DefaultSampler', shuffle=False),
        dataset=dict(
            type='CocoDataset',
            data_root=f'{root}/',
            ann_file=f'{split}.json',
            data_prefix=dict(img=f'{split}/'),
            metainfo=dict(classes=CLASSES),
            test_mode=split == 'archval',
            serialize_data=False,
            pipeline=pipeline,
        ),
    )


def metric_cfg(root: Path, kind: str = 'mmcr.UnroundedCocoMetric', **more) -> dict:
    """Of loose boxes, since those of untrained detectors hardly fit."""
    cfg = dict(type=kind, ann_file=f'{root}/archval.json', iou_thrs=IOU_THRESHOLDS)
    return {**cfg, **more}


def archval_cfg(root: Path, archs: dict) -> dict:
    """Scores architectures while a supernet trains."""
    return dict(
        val_cfg=dict(type='mmcr.ArchValLoop', archs=archs, calibration_images=5),
        val_dataloader=loader_cfg(root, 'archval'),
        val_evaluator=metric_cfg(root),
    )


@functools.cache
def _faster_rcnn() -> dict:
    path, _ = Config._get_cfg_path('mmdet::_base_/models/faster-rcnn_r50_fpn.py', '')
    return Config.fromfile(path).model


def detector_cfg(backbone: dict) -> dict:
    """Faster R-CNN that keeps every detection, so that no AP is without signal.

    A backbone without a type is a small `CRResNet`.
    """
    cfg = copy.deepcopy(_faster_rcnn())
    cfg.backbone = backbone
    if 'type' not in backbone:
        cfg.backbone = dict(
            dict(
                type='mmcr.CRResNet',
                depth=18,
                base_channels=8,
                norm_eval=False,
                zero_init_residual=False,
            ),
            **backbone,
        )  # every weight of a path learns at once
    cfg.neck.update(in_channels=[8, 16, 32, 64], out_channels=16)
    cfg.rpn_head.update(in_channels=16, feat_channels=16)
    cfg.roi_head.bbox_roi_extractor.update(out_channels=16)
    cfg.roi_head.bbox_head.update(
        in_channels=16, fc_out_channels=32, num_classes=len(CLASSES)
    )
    cfg.train_cfg.rpn_proposal.update(nms_pre=50, max_per_img=20)
    cfg.train_cfg.rcnn.sampler.update(num=16)
    cfg.test_cfg.rpn.update(nms_pre=50, max_per_img=20)
    cfg.test_cfg.rcnn.update(score_thr=0.0, max_per_img=50)
    return cfg


def runner_cfg(work_dir: Path, backbone: dict, **more) -> Config:
    return Config(
        dict(
            default_scope='mmdet',
            experiment_name=next(_names),
            log_level='ERROR',
            work_dir=str(work_dir),
            model=detector_cfg(backbone),
            randomness=dict(seed=0),
            **more,
        ),
        format_python_code=False,
    )  # it takes longer than a small search


def search_cfg(
    root: Path, work_dir: Path, checkpoint: Path | None, backbone: dict = STAGE, **loop
) -> Config:
    """Searches archval; `loop` are options of the search loop."""
    test_cfg = dict(
        type='mmcr.ArchSearchLoop',
        searcher=dict(type='mmcr.ExhaustiveSearcher'),
        calibration_dataloader=loader_cfg(root, 'archtrain'),
        calibration_images=5,
    )
    return runner_cfg(
        work_dir,
        backbone,
        load_from=checkpoint and str(checkpoint),
        test_cfg={**test_cfg, **loop},
        test_evaluator=metric_cfg(root),
        test_dataloader=loader_cfg(root, 'archval'),
    )


def train_cfg(
    root: Path, work_dir: Path, backbone: dict = STAGE, iterations: int = 2, **more
) -> Config:
    """Trains on archtrain with a sampled path and a checkpoint per iteration."""
    return runner_cfg(
        work_dir,
        backbone,
        train_dataloader=loader_cfg(root, 'archtrain'),
        train_cfg=dict(
            type='IterBasedTrainLoop',
            max_iters=iterations,
            val_interval=more.pop('val_interval', 1000),
        ),
        optim_wrapper=dict(
            optimizer=dict(type='SGD', lr=0.01, momentum=0.9, weight_decay=0.01)
        ),
        custom_hooks=[dict(type='mmcr.ArchSamplingHook', seed=7)],
        default_hooks=dict(
            checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=1)
        ),
        **more,
    )


def write_checkpoint(path: Path, backbone: dict, seed: int = 0) -> Path:
    """Of a detector with random weights."""
    torch.save(dict(state_dict=build_detector(backbone, seed).state_dict()), path)
    return path


def left_by(work_dir: Path) -> dict[str, bytes]:
    """All that a search leaves for its user, by path."""
    return {
        str(path.relative_to(work_dir)): path.read_bytes()
        for name in ('trials.jsonl', 'best_arch.*', 'front.json', 'not_told_apart.json')
        for path in work_dir.rglob(name)
    }


def build_detector(backbone: dict, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return MODELS.build(detector_cfg(backbone))


def candidate_evaluator(
    model: nn.Module, root: Path, calibration_images: int | None = None, **options
) -> CandidateEvaluator:
    archval = build_loader(loader_cfg(root, 'archval'), 'archval')
    evaluator = Evaluator(metric_cfg(root))
    evaluator.dataset_meta = archval.dataset.metainfo
    calibration = None
    if calibration_images != 0:
        calibration = build_loader(
            loader_cfg(root, 'archtrain'), 'calibration', calibration_images
        )
    return CandidateEvaluator(model, evaluator, archval, calibration, **options)


def fixed_detector(candidates, arch):
    """A detector of the fixed network `arch`, calibrated by itself."""
    model = copy.deepcopy(candidates.model)
    model.backbone = fixed_of(candidates.backbone, arch)
    if candidates.calibration is not None:
        calibrate_alone(
            model.backbone,
            [
                model.data_preprocessor(data)['inputs']
                for data in candidates.calibration
            ],
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
