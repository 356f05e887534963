_base_ = [
    '../_base_/archs/detnas_voc-retinanet_300m.py',
    '../_base_/models/retinanet_detnas_fpn.py',
    '../_base_/datasets/voc0712.py',
    '../_base_/schedules/schedule_18e.py',
    'mmdet::_base_/default_runtime.py',
]

model = dict(
    bbox_head=dict(num_classes=20),
    backbone=_base_.cr_backbone,
    neck=dict(in_channels=_base_.cr_neck_in_channels))

optim_wrapper = dict(optimizer=dict(lr=0.01))
