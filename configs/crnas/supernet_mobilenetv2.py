# Of the paper's choices only those are kept that some network of the budget can
# have; beside five blocks in stage 1 no others add up to it.
# Half width is our decision: the paper gives it for ResNet and ResNeXt only. Channels
# are rounded to multiples of 8, so that stages 1 and 2 are equally wide here.
_base_ = './supernet_r50.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmcr.CRMobileNetV2',
        widen_factor=0.5,
        out_indices=(1, 2, 4, 7),
        norm_eval=False,
        supernet='stage',
        share='prefix',
        stage_choices=dict(stage1=(1, 2, 3, 4))),
    neck=dict(in_channels=[16, 16, 48, 1280]))

val_cfg = dict(
    archs=dict(
        _delete_=True,
        baseline=[2, 3, 4, 3, 3],
        shallow=[4, 3, 3, 2, 2],
        deep=[1, 1, 3, 4, 6]))
