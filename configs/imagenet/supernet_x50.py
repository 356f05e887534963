# The backbone of ../crnas/supernet_x50.py.
_base_ = './supernet_r50.py'

model = dict(backbone=dict(type='mmcr.CRResNeXt'))
