# Faster R-CNN + FPN as DetNAS has it: norms in neck and box head, the head with four
# convolutions. Its supernet.
_base_ = 'mmdet::_base_/models/faster-rcnn_r50_fpn.py'

norm_cfg = dict(type='BN')  # SyncBN in distributed runs, as the schedules' sync_bn says
model = dict(
    backbone=dict(
        _delete_=True, type='mmcr.DetNASNet', net='300M', supernet='block'),
    neck=dict(in_channels=[64, 160, 320, 640], norm_cfg=norm_cfg),
    roi_head=dict(
        bbox_head=dict(type='Shared4Conv1FCBBoxHead', norm_cfg=norm_cfg)))
