# Any detector takes a reallocated backbone: mmdet's own RetinaNet and schedule.
_base_ = [
    '../_base_/archs/r50_full-cr.py',
    'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py',
]

model = dict(
    backbone=_base_.cr_backbone, neck=dict(in_channels=_base_.cr_neck_in_channels))
sync_bn = 'torch'  # the backbone's norms learn, where mmdet's are frozen
