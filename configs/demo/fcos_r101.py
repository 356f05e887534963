# The demo's detector: FCOS on a narrow ResNet-101, without a top-down path between the
# levels (each sees what its own stage has made of the image), sized for a CPU, on the
# embedded data set. A plain config of mmdet's; tools/reallocate.py does the rest.
_base_ = './shapes.py'

# Data
data_root = 'data/shapes128/'
scale = (128, 128)
train_pipeline = _base_.train_pipeline
train_pipeline[2]['scale'] = scale
test_pipeline = _base_.test_pipeline
test_pipeline[1]['scale'] = scale
train_dataloader = dict(dataset=dict(data_root=data_root, pipeline=train_pipeline))
test_dataloader = dict(dataset=dict(data_root=data_root, pipeline=test_pipeline))
val_dataloader = test_dataloader
val_evaluator = dict(ann_file=data_root + 'test.json')
test_evaluator = val_evaluator

# Detector: an eighth of the usual widths, from random weights.
model = dict(
    _delete_=True,
    type='FCOS',
    data_preprocessor=dict(
        type='DetDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_size_divisor=32),
    backbone=dict(
        type='ResNet',
        depth=101,
        base_channels=8,
        stem_channels=8,
        frozen_stages=-1,
        norm_eval=False,
        style='pytorch'),
    neck=dict(
        type='ChannelMapper',
        in_channels=[32, 64, 128, 256],
        out_channels=32,
        kernel_size=1,
        norm_cfg=dict(type='BN'),
        act_cfg=None,
        num_outs=4),
    bbox_head=dict(
        type='FCOSHead',
        num_classes=6,
        in_channels=32,
        feat_channels=32,
        stacked_convs=1,
        strides=[4, 8, 16, 32],
        regress_ranges=((-1, 16), (16, 32), (32, 64), (64, 1e8)),
        center_sampling=True,
        centerness_on_reg=True,
        norm_on_bbox=True,
        norm_cfg=dict(type='GN', num_groups=8, requires_grad=True),
        loss_bbox=dict(type='GIoULoss', loss_weight=1.0)),
    test_cfg=dict(
        nms_pre=256,
        min_bbox_size=0,
        score_thr=0.05,
        nms=dict(type='nms', iou_threshold=0.5),
        max_per_img=100))

# Schedule
max_epochs = 4
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
warm_up = dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=50)
cosine = dict(
    type='CosineAnnealingLR',
    by_epoch=True,
    end=max_epochs,
    convert_to_iter_based=True)
param_scheduler = [warm_up, cosine]
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(
        _delete_=True, type='AdamW', lr=0.002, weight_decay=0.05),
    clip_grad=dict(max_norm=10))

# What tools/reallocate.py takes for its options, for a demo of minutes: the stage
# search alone, in a supernet as wide as the detector, over a dozen architectures that
# are far apart. The best by expected score goes straight to the three seeds that judge.
longer = 10
reallocation = dict(
    _delete_=True,
    archval=200,
    width=1.0,
    dilations=False,
    candidates=1,
    trainings=6,
    jobs=2,
    backbone=dict(
        stage_choices=dict(
            stage1=(3, 10, 13),
            stage2=(4, 10, 13),
            stage3=(4, 7, 10, 14, 17, 20, 23),
            stage4=(3, 6))),
    supernet=dict(
        train_cfg=dict(max_epochs=longer, val_interval=longer),
        param_scheduler=[warm_up, dict(cosine, end=longer)],
        val_cfg=dict(calibration_images=32, num_minibatches=4)))
