custom_hooks = [
    dict(
        sampler=dict(type='mmcr.StrictlyFairSampler'),
        seed=7,
        type='mmcr.ArchSamplingHook',
    ),
    dict(type='mmcr.ExactResumeHook'),
    dict(type='mmcr.PathLogHook'),
]
default_hooks = dict(
    checkpoint=dict(
        by_epoch=False, interval=1, save_optimizer=False, type='CheckpointHook'
    )
)
default_scope = 'mmdet'
experiment_name = 'test0'
log_level = 'ERROR'
model = dict(
    backbone=dict(
        base_channels=2,
        depth=18,
        norm_eval=False,
        stage_choices=dict(stage1=(1, 2), stage2=(1, 2), stage3=(2,), stage4=(2, 3)),
        stem_channels=4,
        supernet='stage',
        type='mmcr.CRResNet',
        zero_init_residual=False,
    ),
    data_preprocessor=dict(
        bgr_to_rgb=True,
        mean=[123.675, 116.28, 103.53],
        pad_size_divisor=32,
        std=[58.395, 57.12, 57.375],
        type='DetDataPreprocessor',
    ),
    neck=dict(in_channels=[2, 4, 8, 16], num_outs=5, out_channels=8, type='FPN'),
    roi_head=dict(
        bbox_head=dict(
            bbox_coder=dict(
                target_means=[0.0, 0.0, 0.0, 0.0],
                target_stds=[0.1, 0.1, 0.2, 0.2],
                type='DeltaXYWHBBoxCoder',
            ),
            fc_out_channels=8,
            in_channels=8,
            loss_bbox=dict(loss_weight=1.0, type='L1Loss'),
            loss_cls=dict(loss_weight=1.0, type='CrossEntropyLoss', use_sigmoid=False),
            num_classes=6,
            reg_class_agnostic=False,
            roi_feat_size=7,
            type='Shared2FCBBoxHead',
        ),
        bbox_roi_extractor=dict(
            featmap_strides=[4, 8, 16, 32],
            out_channels=8,
            roi_layer=dict(output_size=7, sampling_ratio=0, type='RoIAlign'),
            type='SingleRoIExtractor',
        ),
        type='StandardRoIHead',
    ),
    rpn_head=dict(
        anchor_generator=dict(
            ratios=[0.5, 1.0, 2.0],
            scales=[8],
            strides=[4, 8, 16, 32, 64],
            type='AnchorGenerator',
        ),
        bbox_coder=dict(
            target_means=[0.0, 0.0, 0.0, 0.0],
            target_stds=[1.0, 1.0, 1.0, 1.0],
            type='DeltaXYWHBBoxCoder',
        ),
        feat_channels=8,
        in_channels=8,
        loss_bbox=dict(loss_weight=1.0, type='L1Loss'),
        loss_cls=dict(loss_weight=1.0, type='CrossEntropyLoss', use_sigmoid=True),
        type='RPNHead',
    ),
    test_cfg=dict(
        rcnn=dict(
            max_per_img=50, nms=dict(iou_threshold=0.5, type='nms'), score_thr=0.0
        ),
        rpn=dict(
            max_per_img=20,
            min_bbox_size=0,
            nms=dict(iou_threshold=0.7, type='nms'),
            nms_pre=50,
        ),
    ),
    train_cfg=dict(
        rcnn=dict(
            assigner=dict(
                ignore_iof_thr=-1,
                match_low_quality=False,
                min_pos_iou=0.5,
                neg_iou_thr=0.5,
                pos_iou_thr=0.5,
                type='MaxIoUAssigner',
            ),
            debug=False,
            pos_weight=-1,
            sampler=dict(
                add_gt_as_proposals=True,
                neg_pos_ub=-1,
                num=16,
                pos_fraction=0.25,
                type='RandomSampler',
            ),
        ),
        rpn=dict(
            allowed_border=-1,
            assigner=dict(
                ignore_iof_thr=-1,
                match_low_quality=True,
                min_pos_iou=0.3,
                neg_iou_thr=0.3,
                pos_iou_thr=0.7,
                type='MaxIoUAssigner',
            ),
            debug=False,
            pos_weight=-1,
            sampler=dict(
                add_gt_as_proposals=False,
                neg_pos_ub=-1,
                num=256,
                pos_fraction=0.5,
                type='RandomSampler',
            ),
        ),
        rpn_proposal=dict(
            max_per_img=20,
            min_bbox_size=0,
            nms=dict(iou_threshold=0.7, type='nms'),
            nms_pre=50,
        ),
    ),
    type='FasterRCNN',
)
model_wrapper_cfg = dict(type='mmcr.ActivePathDDP')
optim_wrapper = dict(
    optimizer=dict(lr=0.01, momentum=0.9, type='SGD', weight_decay=0.01)
)
randomness = dict(seed=0)
train_cfg = dict(max_iters=2, type='IterBasedTrainLoop', val_interval=1000)
train_dataloader = dict(
    batch_size=2,
    dataset=dict(
        ann_file='archtrain.json',
        data_prefix=dict(img='archtrain/'),
        data_root='shapes/',
        metainfo=dict(
            classes=(
                'triangle',
                'cross',
                'striped',
                'checkered',
                'matched',
                'mismatched',
            )
        ),
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(keep_ratio=True, scale=(96, 96), type='Resize'),
            dict(type='LoadAnnotations', with_bbox=True),
            dict(
                meta_keys=(
                    'img_id',
                    'img_path',
                    'ori_shape',
                    'img_shape',
                    'scale_factor',
                ),
                type='PackDetInputs',
            ),
        ],
        serialize_data=False,
        test_mode=False,
        type='CocoDataset',
    ),
    num_workers=0,
    sampler=dict(shuffle=False, type='DefaultSampler'),
)
visualizer = dict(type='Visualizer')
work_dir = 'train'
