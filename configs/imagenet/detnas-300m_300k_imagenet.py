_base_ = [
    '../_base_/archs/detnas_coco-fpn_300m.py',
    '../_base_/recipes/classifier_300k_imagenet.py',
]

model = dict(backbone=dict(_base_.cr_backbone, out_indices=(4, )))
