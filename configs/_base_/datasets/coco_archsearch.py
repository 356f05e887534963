# The search's split of COCO train2017: 5,000 images to score architectures on
# (archval), the rest to train supernets on (archtrain). Made by
#   python tools/dataset_converters/split_coco.py \
#       data/coco/annotations/instances_train2017.json --archval 5000 \
#       --out-dir data/coco/annotations
_base_ = 'mmdet::_base_/datasets/coco_detection.py'

data_root = 'data/coco/'
archval_ann_file = 'annotations/archval.json'

train_dataloader = dict(dataset=dict(ann_file='annotations/archtrain.json'))
val_dataloader = dict(
    batch_size=8,
    dataset=dict(ann_file=archval_ann_file, data_prefix=dict(img='train2017/')))
test_dataloader = val_dataloader

val_evaluator = dict(
    _delete_=True,
    type='mmcr.UnroundedCocoMetric',
    ann_file=data_root + archval_ann_file,
    metric='bbox')
test_evaluator = val_evaluator
