# Basic blocks have their own supernet. Of the paper's choices only those are
# kept that some network of 8 blocks can have: the other values would take
# most of the training and never be chosen.
_base_ = './supernet_r50.py'

model = dict(
    backbone=dict(
        depth=18,
        stage_choices=dict(
            stage1=(1, 2, 3), stage2=(1, 2, 3), stage3=(2, 3), stage4=(2, 3, 4))),
    neck=dict(in_channels=[32, 64, 128, 256]))

val_cfg = dict(
    archs=dict(
        _delete_=True, baseline=[2, 2, 2, 2], shallow=[3, 1, 2, 2], deep=[1, 1, 2, 4]))
