_base_ = [
    'mmdet::_base_/models/cascade-mask-rcnn_r50_fpn.py',
    'mmdet::_base_/datasets/coco_instance.py',
    '../schedules/schedule_20e.py',
    'mmdet::_base_/default_runtime.py',
]
