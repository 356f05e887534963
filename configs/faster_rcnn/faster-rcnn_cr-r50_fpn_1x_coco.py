# CR_ARCH: the backbone, a found best_arch.py in the place of the published one.
_base_ = [
    '{{$CR_ARCH:../_base_/archs/r50_full-cr.py}}',
    'mmdet::_base_/models/faster-rcnn_r50_fpn.py',
    'mmdet::_base_/datasets/coco_detection.py',
    '../_base_/schedules/schedule_1x.py',
    'mmdet::_base_/default_runtime.py',
]

model = dict(
    backbone=_base_.cr_backbone, neck=dict(in_channels=_base_.cr_neck_in_channels))
