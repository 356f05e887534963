_base_ = [
    '../_base_/archs/r50_full-cr.py',
    '../_base_/recipes/classifier_150e_imagenet.py',
]

model = dict(
    backbone=_base_.cr_backbone,
    head=dict(in_channels=_base_.cr_neck_in_channels[-1]))
