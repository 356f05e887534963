# The supernet of ../detnas. Its checkpoint starts the detector by
# model.backbone.init_cfg =
#     dict(type='Pretrained', checkpoint=..., prefix='backbone.')
_base_ = '../_base_/recipes/classifier_300k_imagenet.py'

model = dict(
    backbone=dict(
        type='mmcr.DetNASNet', net='300M', supernet='block', out_indices=(4, )))

# Paths are drawn uniform over their cost, as DetNAS does: seven bins of 10M from 290M
# to 360M with the classifier, 1,024,000 of which are the last layer's.
custom_hooks = [
    dict(
        type='mmcr.ArchSamplingHook',
        seed=0,
        sampler=dict(
            type='mmcr.CostUniformSampler', bins=7, low=288976000, high=358976000),
        cost='macs',
        shape=(224, 224)),
    dict(type='mmcr.ExactResumeHook'),
    dict(type='mmcr.PathLogHook'),
]
model_wrapper_cfg = dict(type='mmcr.ActivePathDDP')

# A path's accuracy says nothing before its norms are calibrated.
val_cfg = val_dataloader = val_evaluator = None
test_cfg = test_dataloader = test_evaluator = None
