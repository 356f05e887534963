# What the ranking study trains and searches: networks of 16 basic blocks at an eighth
# of ResNet-18's widths, so narrow that it matters where the blocks are, on images of
# the embedded data set, sized for a CPU.
step = '{{$CR_STEP:crnas/supernet_r18}}'
_base_ = '../configs/demo/shapes.py'

base = 8
widths = [base, 2 * base, 4 * base, 8 * base]
# Of the paper's choices, what networks of 16 blocks can have.
choices = dict(
    stage_choices=dict(
        stage1=(1, 2, 3, 4, 5, 6, 7, 8, 9, 10),
        stage2=(1, 2, 3, 4, 5, 6, 7, 8, 9, 10),
        stage3=(2, 3, 5, 6, 9, 11),
        stage4=(2, 3, 4, 6, 7, 9, 11),
    )
)
searching = step.startswith('crnas')
model = dict(
    backbone=dict(
        base_channels=base, stem_channels=base, **(choices if searching else {})
    ),
    neck=dict(in_channels=widths),
)

# Members learn from the images that the supernet learns from.
train_dataloader = dict(dataset=dict(ann_file='archtrain.json'))
max_epochs = 24 if searching else 6
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
if searching:
    val_cfg = dict(
        archs=dict(
            _delete_=True,
            baseline=[4, 4, 6, 2],
            shallow=[10, 2, 2, 2],
            deep=[1, 1, 3, 11],
        )
    )
if 'search' in step:
    test_cfg = dict(
        budget=16,
        calibration_images=400,
        final_backbone=dict(base_channels=base, stem_channels=base),
    )
