# The backbone of ../crnas/supernet_r50.py. Its checkpoint starts the detector by
# model.backbone.init_cfg =
#     dict(type='Pretrained', checkpoint=..., prefix='backbone.')
_base_ = [
    '../_base_/recipes/classifier_150e_imagenet.py',
    '../_base_/supernet_training.py',
]

custom_hooks = _base_.supernet_hooks

model = dict(
    backbone=dict(
        type='mmcr.CRResNet',
        depth=50,
        base_channels=32,
        stem_channels=64,
        norm_eval=False,
        supernet='stage',
        share='prefix'),
    head=dict(in_channels=1024))

# A path's accuracy says nothing before its norms are calibrated.
val_cfg = val_dataloader = val_evaluator = None
test_cfg = test_dataloader = test_evaluator = None
