# RetinaNet as DetNAS has it: three of the backbone's outputs, norms there alone. Its
# supernet.
_base_ = 'mmdet::_base_/models/retinanet_r50_fpn.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmcr.DetNASNet',
        net='300M',
        supernet='block',
        out_indices=(1, 2, 3)),
    neck=dict(
        in_channels=[160, 320, 640],
        start_level=0,
        add_extra_convs='on_output',
        relu_before_extra_convs=True))
