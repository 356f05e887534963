# Start it from a pre-trained supernet, as ./supernet_fpn_300m_coco.py. The schedule is
# CR-NAS's on VOC, our decision.
_base_ = [
    '../_base_/models/faster-rcnn_detnas_fpn.py',
    '../_base_/datasets/voc_archsearch.py',
    '../_base_/schedules/schedule_18e.py',
    'mmdet::_base_/default_runtime.py',
    '../_base_/supernet_training.py',
]

custom_hooks = _base_.supernet_hooks

model = dict(roi_head=dict(bbox_head=dict(num_classes=20)))

val_cfg = dict(
    _delete_=True,
    type='mmcr.ArchValLoop',
    archs=dict(all_3x3=0, all_5x5=1, all_7x7=2, all_xception=3),
    **_base_.scored)
