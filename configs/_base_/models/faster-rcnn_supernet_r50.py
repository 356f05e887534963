# Faster R-CNN + FPN on a stage supernet: every stage half as wide as ResNet's. The
# numbers of blocks of a stage share their first blocks, which the paper's do not
# (share='branch'): sharing ranked networks better (benchmarks/results/ranking.md), and
# takes less memory.
_base_ = 'mmdet::_base_/models/faster-rcnn_r50_fpn.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmcr.CRResNet',
        depth=50,
        base_channels=32,
        stem_channels=64,
        norm_eval=False,
        supernet='stage',
        share='prefix'),
    neck=dict(in_channels=[128, 256, 512, 1024]))
