_base_ = [
    '../_base_/archs/detnas_coco-fpn_3800m.py',
    '../_base_/models/faster-rcnn_detnas_fpn.py',
    'mmdet::_base_/datasets/coco_detection.py',
    '../_base_/schedules/schedule_90k.py',
]

model = dict(
    backbone=_base_.cr_backbone,
    neck=dict(in_channels=_base_.cr_neck_in_channels))
