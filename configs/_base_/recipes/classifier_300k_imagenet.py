# DetNAS's ImageNet pre-training of a backbone inside a classifier of mmpretrain (pip
# install onedl-mmpretrain torchvision): 300,000 iterations of 1,024 images, lr from 0.5
# straight to 0, label smoothing, weight decay on weights alone.
_base_ = './classifier_150e_imagenet.py'

model = dict(
    head=dict(
        in_channels=1024,
        loss=dict(
            _delete_=True, type='LabelSmoothLoss', label_smooth_val=0.1,
            num_classes=1000)))

max_iters = 300000
val_interval = 10000
train_cfg = dict(
    _delete_=True,
    type='IterBasedTrainLoop',
    max_iters=max_iters,
    val_interval=val_interval)
param_scheduler = [
    dict(type='LinearLR', start_factor=1, end_factor=0, by_epoch=False, end=max_iters)
]
optim_wrapper = dict(
    optimizer=dict(lr=0.5, weight_decay=0.00004),
    paramwise_cfg=dict(norm_decay_mult=0, bias_decay_mult=0))
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=val_interval))
log_processor = dict(by_epoch=False)
