_base_ = [
    '../_base_/archs/detnas_voc-fpn_300m.py',
    '../_base_/models/faster-rcnn_detnas_fpn.py',
    '../_base_/datasets/voc0712.py',
    '../_base_/schedules/schedule_18e.py',
    'mmdet::_base_/default_runtime.py',
]

model = dict(
    roi_head=dict(bbox_head=dict(num_classes=20)),
    backbone=_base_.cr_backbone,
    neck=dict(in_channels=_base_.cr_neck_in_channels))
