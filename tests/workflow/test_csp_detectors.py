"""RTMDet and YOLOX: backbones of CSP layers, and recipes with habits of their own."""

import json
import runpy
import sys

import pytest
from config_files import CONFIGS
from in_process import in_this_process

from mmcr.engine.launch import read_config
from mmcr.workflow.steps import StepRunner

SHARED = """
side = (64, 64)
classes = ('triangle', 'cross', 'striped', 'checkered', 'matched', 'mismatched')
data = dict(data_root='data/shapes/', metainfo=dict(classes=classes))
train_set = dict(ann_file='train.json', data_prefix=dict(img='train/'), **data)
test_set = dict(ann_file='test.json', data_prefix=dict(img='test/'), **data)
loader = dict(batch_size=4, num_workers=0, persistent_workers=False)
read = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True)]
test_pipeline = [
    read[0],
    dict(type='Resize', scale=side, keep_ratio=True),
    dict(type='Pad', size=side, pad_val=dict(img=(114, 114, 114))),
    read[1],
    dict(type='PackDetInputs', meta_keys=('img_id', 'ori_shape', 'img_shape',
                                          'scale_factor')),
]
val_dataloader = dict(dataset=dict(pipeline=test_pipeline, **test_set), **loader)
test_dataloader = val_dataloader
val_evaluator = test_evaluator = dict(ann_file='data/shapes/test.json')
model = dict(
    backbone=dict(deepen_factor=0.33, widen_factor=0.125),
    neck=dict(in_channels=[32, 64, 128], out_channels=32),
    bbox_head=dict(num_classes=6, in_channels=32, feat_channels=32))
train_cfg = dict(max_epochs=2, val_interval=2)
param_scheduler = [dict(type='ConstantLR', factor=1.0, begin=0, end=2)]
reallocation = dict(
    archval=8, trainings=6, candidates=1, dilations=False,
    supernet=dict(val_cfg=dict(calibration_images=8, num_minibatches=2)),
    search=dict(calibration_images=8))
"""
RTMDET = f"""
_base_ = 'mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py'
{SHARED}
cached = dict(img_scale=side, max_cached_images=4, random_pop=False)
first = [*read, dict(type='CachedMosaic', **cached)]
second = [
    dict(type='RandomResize', scale=side, ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type='RandomCrop', crop_size=side),
    dict(type='YOLOXHSVRandomAug'),
    dict(type='Pad', size=side, pad_val=dict(img=(114, 114, 114))),
]
mixed = dict(type='CachedMixUp', ratio_range=(1.0, 1.0), prob=0.5, **cached)
packed = dict(type='PackDetInputs')
pipeline = [*first, *second, mixed, packed]
train_dataloader = dict(dataset=dict(pipeline=pipeline, **train_set), **loader)
model['backbone'] = dict(model['backbone'], init_cfg=None)
train_cfg['dynamic_intervals'] = None
custom_hooks = [
    dict(type='EMAHook', ema_type='ExpMomentumEMA', momentum=0.002,
         update_buffers=True, priority=49),
    dict(type='PipelineSwitchHook', switch_epoch=1,
         switch_pipeline=[*read, *second, packed]),
]
"""
YOLOX = f"""
_base_ = 'mmdet::yolox/yolox_tiny_8xb8-300e_coco.py'
{SHARED}
pipeline = [
    dict(type='Mosaic', img_scale=side),
    dict(type='RandomAffine', border=(-32, -32)),
    dict(type='MixUp', img_scale=side),
    dict(type='Resize', scale=side, keep_ratio=True),
    dict(type='Pad', pad_to_square=True, pad_val=dict(img=(114.0, 114.0, 114.0))),
    dict(type='FilterAnnotations', min_gt_bbox_wh=(1, 1), keep_empty=False),
    dict(type='PackDetInputs'),
]
mixed = dict(dataset=dict(pipeline=read, **train_set), pipeline=pipeline)
train_dataloader = dict(dataset=mixed, **loader)
model['data_preprocessor'] = dict(batch_augments=None)
model['test_cfg'] = dict(score_thr=0.0)  # so little trained, it is sure of nothing
custom_hooks = [
    dict(type='YOLOXModeSwitchHook', num_last_epochs=1, priority=48),
    dict(type='SyncNormHook', priority=48),
    dict(type='EMAHook', ema_type='ExpMomentumEMA', momentum=0.001,
         update_buffers=True, priority=49),
]
"""
DETECTORS = {
    'rtmdet': (RTMDET, 'CSPNeXt', [1, 2, 2, 1]),
    'yolox': (YOLOX, 'CSPDarknet', [1, 3, 3, 1]),
}


@pytest.fixture(params=DETECTORS)
def detector(request, workplace, monkeypatch):
    """Name of the config, in the workplace; its backbone and the blocks of that."""
    text, *backbone = DETECTORS[request.param]
    (workplace / f'{request.param}.py').write_text(text)
    monkeypatch.chdir(workplace)
    return request.param, *backbone


def reallocate(monkeypatch, *arguments):
    tool = str(CONFIGS.parent / 'tools/reallocate.py')
    monkeypatch.setattr(sys, 'argv', [tool, *arguments])
    runpy.run_path(tool, run_name='__main__')


def test_configs_of_the_steps(detector, workplace, monkeypatch):
    name, backbone, _ = detector
    reallocate(monkeypatch, f'{name}.py', '--work-dir', f'{name}_w', '--write-only')
    steps = workplace / f'{name}_w'
    stage = read_config(steps / '01_stage_supernet/config.py')
    own = read_config(steps / 'networks/baseline/config.py')
    hooks = [hook.type for hook in own.custom_hooks[:2]]
    assert hooks == [hook.type for hook in stage.custom_hooks if hook.type in hooks]
    of_supernet = stage.model.backbone
    assert of_supernet.type == f'mmcr.CR{backbone}'
    assert (of_supernet.deepen_factor, of_supernet.widen_factor) == (0.33, 0.0625)
    assert stage.model.neck.in_channels == [16, 32, 64]
    search = read_config(steps / '02_stage_search/config.py').test_cfg
    assert search.budget.type == 'macs' and list(search.budget.shape) == [64, 64]
    assert search.final_backbone == dict(widen_factor=0.125)


@pytest.mark.slow
@pytest.mark.long
def test_from_beginning_to_end(detector, workplace, monkeypatch):
    name, _, blocks = detector
    monkeypatch.setattr(StepRunner, '_call', in_this_process)
    reallocate(monkeypatch, f'{name}.py')
    result = workplace / f'work_dirs/{name}/result'
    record = json.loads((result / 'comparison.json').read_text())
    baseline, found = record['networks'][:2]
    assert baseline['stage_blocks'] == blocks
    assert found['macs'] == pytest.approx(baseline['macs'], rel=0.01)
    assert (result / 'best.pth').is_file()
