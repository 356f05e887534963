# The backbone of ../crnas/supernet_r18.py, which says why these choices.
_base_ = './supernet_r50.py'

model = dict(
    backbone=dict(
        depth=18,
        stage_choices=dict(
            stage1=(1, 2, 3), stage2=(1, 2, 3), stage3=(2, 3), stage4=(2, 3, 4))),
    head=dict(in_channels=256))
