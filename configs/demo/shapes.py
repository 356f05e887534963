# The demo's detector: Faster R-CNN + FPN on a narrow ResNet-18, sized for a CPU, on the
# embedded data set. A plain config of mmdet's; tools/reallocate.py does the rest.
_base_ = [
    'mmdet::_base_/models/faster-rcnn_r50_fpn.py',
    'mmdet::_base_/datasets/coco_detection.py',
    'mmdet::_base_/default_runtime.py',
]

# Data
data_root = 'data/shapes/'
classes = ('triangle', 'cross', 'striped', 'checkered', 'matched', 'mismatched')
scale = (192, 192)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=scale, keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=scale, keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
data = dict(data_root=data_root, metainfo=dict(classes=classes))
loader = dict(batch_size=8, num_workers=0, persistent_workers=False)
train_dataloader = dict(
    dataset=dict(
        ann_file='train.json',
        data_prefix=dict(img='train/'),
        filter_cfg=dict(min_size=0),
        pipeline=train_pipeline,
        **data),
    **loader)
val_dataloader = dict(
    dataset=dict(
        ann_file='test.json',
        data_prefix=dict(img='test/'),
        pipeline=test_pipeline,
        **data),
    **loader)
test_dataloader = val_dataloader
val_evaluator = dict(
    _delete_=True, type='mmcr.UnroundedCocoMetric', ann_file=data_root + 'test.json')
test_evaluator = val_evaluator

# Detector: an eighth to a quarter of the usual widths, from random weights.
widths = [16, 32, 64, 128]
model = dict(
    data_preprocessor=dict(pad_size_divisor=32),
    backbone=dict(
        depth=18,
        base_channels=16,
        stem_channels=16,
        frozen_stages=-1,
        norm_eval=False,
        init_cfg=None),
    neck=dict(in_channels=widths, out_channels=32),
    rpn_head=dict(in_channels=32, feat_channels=32),
    roi_head=dict(
        bbox_roi_extractor=dict(
            out_channels=32, roi_layer=dict(sampling_ratio=2)),
        bbox_head=dict(
            in_channels=32, fc_out_channels=128, num_classes=len(classes))),
    train_cfg=dict(
        rpn_proposal=dict(nms_pre=256, max_per_img=100),
        rcnn=dict(sampler=dict(num=64))),
    test_cfg=dict(rpn=dict(nms_pre=256, max_per_img=100)))

# Schedule: from scratch, so gradients are clipped.
max_epochs = 8
train_cfg = dict(
    type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=max_epochs)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=50),
    dict(
        type='MultiStepLR',
        end=max_epochs,
        by_epoch=True,
        milestones=[max_epochs * 3 // 4],
        gamma=0.1),
]
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.02, momentum=0.9, weight_decay=0.0001),
    clip_grad=dict(max_norm=10))
# Two: the older one is removed before the newer one is written.
default_hooks = dict(
    logger=dict(interval=10),
    checkpoint=dict(by_epoch=True, interval=1, max_keep_ckpts=2))
randomness = dict(seed=0)

# What tools/reallocate.py takes for its options: a supernet as wide as the detector,
# which is narrow enough, few images, and the stage search alone, for a demo of minutes.
# Two candidates meet in the run-off, three seeds judge.
reallocation = dict(
    archval=100,
    width=1.0,
    dilations=False,
    candidates=2,
    trainings=9,
    jobs=2,
    supernet=dict(val_cfg=dict(calibration_images=32, num_minibatches=4)))
