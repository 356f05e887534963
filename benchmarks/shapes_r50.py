# What the search benchmarks search: ResNet-50 supernets at an eighth of its widths, on
# images of the embedded data set, sized for a CPU. So narrow, and with shared first
# blocks, stage architectures differ by more than the noise of 2,000 images; at a
# quarter and with a branch for each choice they did not.
_base_ = '../configs/demo/shapes.py'

model = dict(
    backbone=dict(depth=50, base_channels=8, stem_channels=8),
    neck=dict(in_channels=[32, 64, 128, 256]),
)

max_epochs = 24
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=200),
    dict(
        type='CosineAnnealingLR',
        by_epoch=True,
        end=max_epochs,
        convert_to_iter_based=True,
    ),
]
reallocation = dict(
    archval='data/shapes/archval.json', search=dict(calibration_images=200)
)
