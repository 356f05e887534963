_base_ = [
    '../_base_/archs/r101_full-cr.py',
    '../_base_/recipes/cascade-mask-rcnn_fpn_20e_coco.py',
]

model = dict(
    backbone=_base_.cr_backbone, neck=dict(in_channels=_base_.cr_neck_in_channels))
