# What the search benchmarks search: a ResNet-50 stage supernet at a quarter of its
# widths, on images of the embedded data set, sized for a CPU.
step = '{{$CR_STEP:crnas/supernet_r50}}'
_base_ = '../configs/demo/shapes.py'

widths = [64, 128, 256, 512]
# Of the space, what networks of 16 blocks can have.
stage_choices = dict(
    stage1=(1, 2, 3, 4, 5, 6, 7, 8, 9, 10),
    stage2=(1, 2, 3, 4, 5, 6, 7, 8, 9, 10),
    stage3=(2, 3, 5, 6, 9, 11),
    stage4=(2, 3, 4, 6, 7, 9, 11))
model = dict(
    backbone=dict(stage_choices=stage_choices), neck=dict(in_channels=widths))

max_epochs = 16
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=200),
    dict(
        type='CosineAnnealingLR',
        by_epoch=True,
        end=max_epochs,
        convert_to_iter_based=True),
]
if 'search' in step:
    test_cfg = dict(calibration_images=200)
