# What shows whether a reallocation of CSPNeXt finds something: RTMDet at a third of the
# tiny one's widths and of the large one's depth, on the images of the demo and by its
# schedule, sized for a CPU. No mosaic and no average of weights, which want longer
# trainings.
_base_ = '../configs/demo/fcos_r101.py'

width = 32
norm = dict(norm_cfg=dict(type='BN'), act_cfg=dict(type='SiLU', inplace=True))
model = dict(
    _delete_=True,
    type='RTMDet',
    data_preprocessor=dict(
        type='DetDataPreprocessor',
        mean=[103.53, 116.28, 123.675],
        std=[57.375, 57.12, 58.395],
        pad_size_divisor=32,
    ),
    backbone=dict(type='CSPNeXt', deepen_factor=1.0, widen_factor=0.125, **norm),
    neck=dict(
        type='CSPNeXtPAFPN',
        in_channels=[32, 64, 128],
        out_channels=width,
        num_csp_blocks=1,
        **norm,
    ),
    bbox_head=dict(
        type='RTMDetSepBNHead',
        num_classes=6,
        in_channels=width,
        feat_channels=width,
        stacked_convs=1,
        anchor_generator=dict(type='MlvlPointGenerator', offset=0, strides=[8, 16, 32]),
        bbox_coder=dict(type='DistancePointBBoxCoder'),
        loss_cls=dict(
            type='QualityFocalLoss', use_sigmoid=True, beta=2.0, loss_weight=1.0
        ),
        loss_bbox=dict(type='GIoULoss', loss_weight=2.0),
        with_objectness=False,
        exp_on_reg=False,
        **norm,
    ),
    train_cfg=dict(
        assigner=dict(type='DynamicSoftLabelAssigner', topk=13),
        allowed_border=-1,
        pos_weight=-1,
    ),
    test_cfg=dict(
        nms_pre=256,
        min_bbox_size=0,
        score_thr=0.01,
        nms=dict(type='nms', iou_threshold=0.65),
        max_per_img=100,
    ),
)

max_epochs = 8
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
param_scheduler = [_base_.warm_up, dict(_base_.cosine, end=max_epochs)]

# As the demo's, over 17 architectures that are far apart.
longer = 16
reallocation = dict(
    backbone=dict(
        stage_choices=dict(
            _delete_=True,
            stage1=(1, 3, 5, 8, 10),
            stage2=(1, 3, 6, 9, 11),
            stage3=(1, 3, 6, 9, 11),
            stage4=(1, 3, 6),
        )
    ),
    supernet=dict(
        train_cfg=dict(max_epochs=longer, val_interval=longer),
        param_scheduler=[_base_.warm_up, dict(_base_.cosine, end=longer)],
    ),
)
