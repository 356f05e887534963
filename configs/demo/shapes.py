# The demo: all steps of CR-NAS or DetNAS on the embedded data set, sized for a CPU.
# tools/reallocate.py runs them and sets CR_STEP and CR_ARCH.
step = '{{$CR_STEP:crnas/supernet_r18}}'
_base_ = '../{{$CR_STEP:crnas/supernet_r18}}.py'

# Data: the search has its own split of the training images.
data_root = 'data/shapes/'
searching = 'supernet' in step or 'search' in step
train_ann, val_ann = ('archtrain.json', 'archval.json') if searching else (
    'train.json', 'test.json')
classes = ('triangle', 'cross', 'striped', 'checkered', 'matched', 'mismatched')
data = dict(data_root=data_root, metainfo=dict(classes=classes))
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
loader = dict(num_workers=0, persistent_workers=False)
train_dataloader = dict(
    batch_size=8,
    dataset=dict(
        ann_file=train_ann,
        data_prefix=dict(img='train/'),
        filter_cfg=dict(min_size=0),
        pipeline=train_pipeline,
        **data),
    **loader)
val_dataloader = dict(
    batch_size=8,
    dataset=dict(
        ann_file=val_ann,
        data_prefix=dict(img='train/' if searching else 'test/'),
        pipeline=test_pipeline,
        **data),
    **loader)
test_dataloader = val_dataloader
val_evaluator = dict(
    _delete_=True, type='mmcr.UnroundedCocoMetric', ann_file=data_root + val_ann)
test_evaluator = val_evaluator

# Backbone, and what its search looks for: narrow.
if step.startswith('detnas'):
    widths = [32, 64, 128, 256]
    net = dict(stage_blocks=(2, 2, 4, 2), stem_channels=16, stage_channels=widths)
    search_options = dict(
        searcher=dict(
            population=10, generations=5, top=4, mutations=4, crossovers=4),
        # meets 72% of the paths, as 300M meet 69% of those of DetNAS
        budget=dict(limit=32e6, shape=scale))
else:
    widths = [16, 32, 64, 128]
    net = dict(base_channels=16, stem_channels=16)
    search_options = dict(final_backbone=dict(base_channels=16))

# Detector: Faster R-CNN + FPN with an eighth to a quarter of its widths.
model = dict(
    data_preprocessor=dict(pad_size_divisor=32),
    backbone=net,
    neck=dict(in_channels=widths, out_channels=32),
    rpn_head=dict(in_channels=32, feat_channels=32),
    roi_head=dict(
        bbox_roi_extractor=dict(
            out_channels=32, roi_layer=dict(sampling_ratio=2)),
        bbox_head=dict(  # the four convolutions of DetNAS's would take longest of all
            type='Shared2FCBBoxHead',
            in_channels=32,
            fc_out_channels=128,
            num_classes=len(classes))),
    train_cfg=dict(
        rpn_proposal=dict(nms_pre=256, max_per_img=100),
        rcnn=dict(sampler=dict(num=64))),
    test_cfg=dict(rpn=dict(nms_pre=256, max_per_img=100)))

# Schedule: from scratch, so gradients are clipped.
max_epochs = 16 if step.startswith('detnas') else 8  # ResNets learn faster
train_cfg = dict(
    _delete_=True,
    type='EpochBasedTrainLoop',
    max_epochs=max_epochs,
    val_interval=max_epochs)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=50),
    dict(
        type='MultiStepLR',
        end=max_epochs,
        by_epoch=True,
        milestones=[max_epochs * 3 // 4],
        gamma=0.1),
]
optim_wrapper = dict(clip_grad=dict(max_norm=10))
# Two: the older one is removed before the newer one is written.
default_hooks = dict(
    logger=dict(interval=10),
    checkpoint=dict(by_epoch=True, interval=1, max_keep_ckpts=2))
log_processor = dict(by_epoch=True)
randomness = dict(seed=0)
cost_shape = scale[::-1]  # the input to count costs at: height, width
few = dict(calibration_images=32, num_minibatches=4)
if searching:
    val_cfg = few
if 'search' in step:
    test_cfg = dict(**search_options, **few)
