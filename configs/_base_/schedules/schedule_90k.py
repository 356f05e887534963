# DetNAS's recipe on COCO: SGD, 90,000 iterations of 16 images. lr 0.02 for Faster
# R-CNN, 0.01 for RetinaNet.
_base_ = 'mmdet::_base_/default_runtime.py'

max_iters = 90000
val_interval = 15000
train_cfg = dict(
    type='IterBasedTrainLoop', max_iters=max_iters, val_interval=val_interval)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

param_scheduler = [
    dict(type='LinearLR', start_factor=1 / 3, by_epoch=False, begin=0, end=500),
    dict(
        type='MultiStepLR',
        begin=0,
        end=max_iters,
        by_epoch=False,
        milestones=[60000, 80000],
        gamma=0.1),
]

batch_size = 16  # 8 GPUs x 2 images
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.02, momentum=0.9, weight_decay=0.0001))
auto_scale_lr = dict(enable=False, base_batch_size=batch_size)
default_hooks = dict(
    checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=val_interval))
log_processor = dict(by_epoch=False)

# mmengine converts the norms in distributed runs only: on one device BN stays BN
sync_bn = 'torch'
