# Start it from a pre-trained supernet, as ./supernet_fpn_300m_coco.py.
_base_ = [
    '../_base_/models/retinanet_detnas_fpn.py',
    '../_base_/datasets/coco_archsearch.py',
    '../_base_/schedules/schedule_90k.py',
    '../_base_/supernet_training.py',
]

custom_hooks = _base_.supernet_hooks

optim_wrapper = dict(optimizer=dict(lr=0.01))

val_cfg = dict(
    _delete_=True,
    type='mmcr.ArchValLoop',
    archs=dict(all_3x3=0, all_5x5=1, all_7x7=2, all_xception=3))
