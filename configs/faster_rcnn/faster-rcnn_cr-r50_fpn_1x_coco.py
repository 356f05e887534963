_base_ = [
    '../_base_/archs/r50_full-cr.py',
    '../_base_/recipes/faster-rcnn_fpn_1x_coco.py',
]

model = dict(
    backbone=_base_.cr_backbone, neck=dict(in_channels=_base_.cr_neck_in_channels))
