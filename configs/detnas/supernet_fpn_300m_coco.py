# Start it from a pre-trained supernet (../imagenet/detnas_supernet_300m.py) by
# model.backbone.init_cfg = dict(type='Pretrained', checkpoint=..., prefix='backbone.')
_base_ = [
    '../_base_/models/faster-rcnn_detnas_fpn.py',
    '../_base_/datasets/coco_archsearch.py',
    '../_base_/schedules/schedule_90k.py',
    '../_base_/supernet_training.py',
]

custom_hooks = _base_.supernet_hooks

val_cfg = dict(
    _delete_=True,
    type='mmcr.ArchValLoop',
    archs=dict(all_3x3=0, all_5x5=1, all_7x7=2, all_xception=3))
