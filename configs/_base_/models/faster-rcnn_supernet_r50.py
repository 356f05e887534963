# Faster R-CNN + FPN on a stage supernet: every stage half as wide as ResNet's.
_base_ = 'mmdet::_base_/models/faster-rcnn_r50_fpn.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmcr.CRResNet',
        depth=50,
        base_channels=32,
        stem_channels=64,
        norm_eval=False,
        supernet='stage'),
    neck=dict(in_channels=[128, 256, 512, 1024]))
