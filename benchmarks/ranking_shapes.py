# What the ranking study trains and searches: networks of 16 basic blocks at an eighth
# of ResNet-34's widths, so narrow that it matters where the blocks are, on images of
# the embedded data set, sized for a CPU.
_base_ = '../configs/demo/shapes.py'

base = 8
model = dict(
    backbone=dict(depth=34, base_channels=base, stem_channels=base),
    neck=dict(in_channels=[base, 2 * base, 4 * base, 8 * base]),
)

# Members learn from the images that the supernet learns from.
train_dataloader = dict(dataset=dict(ann_file='archtrain.json'))
max_epochs = 6
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
warm_up = dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=200)
cosine = dict(
    type='CosineAnnealingLR',
    by_epoch=True,
    end=max_epochs,
    convert_to_iter_based=True,
)
param_scheduler = [warm_up, cosine]

# Of the supernet.
longer = 24
reallocation = dict(
    _delete_=True,
    archval='data/shapes/archval.json',
    width=1.0,
    supernet=dict(
        train_cfg=dict(max_epochs=longer, val_interval=longer),
        param_scheduler=[warm_up, dict(cosine, end=longer)],
        val_cfg=dict(calibration_images=32, num_minibatches=4),
    ),
    search=dict(calibration_images=400),
)
