_base_ = [
    'mmdet::_base_/models/faster-rcnn_r50_fpn.py',
    'mmdet::_base_/datasets/coco_detection.py',
    '../schedules/schedule_1x.py',
    'mmdet::_base_/default_runtime.py',
]
