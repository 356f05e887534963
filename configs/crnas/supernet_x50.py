# Grouped bottlenecks, half as wide: as many groups, each of half the channels.
# One supernet serves X50 and X101 alike.
_base_ = './supernet_r50.py'

model = dict(backbone=dict(type='mmcr.CRResNeXt'))
