# The backbone of ../crnas/supernet_mobilenetv2.py, which says why these choices.
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
    head=dict(in_channels=1280))
