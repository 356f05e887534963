# What the search benchmarks search: ResNet-50 supernets at an eighth of its widths, on
# images of the embedded data set, sized for a CPU. So narrow, and with shared first
# blocks, stage architectures differ by more than the noise of 2,000 images; at a
# quarter and with a branch for each choice they did not.
step = '{{$CR_STEP:crnas/supernet_r50}}'
_base_ = '../configs/demo/shapes.py'

widths = [32, 64, 128, 256]
backbone = dict(base_channels=8, stem_channels=8)
if 'op_' not in step:
    # Of the space, what networks of 16 blocks can have.
    backbone.update(
        share='prefix',
        stage_choices=dict(
            stage1=(1, 2, 3, 4, 5, 6, 7, 8, 9, 10),
            stage2=(1, 2, 3, 4, 5, 6, 7, 8, 9, 10),
            stage3=(2, 3, 5, 6, 9, 11),
            stage4=(2, 3, 4, 6, 7, 9, 11),
        ),
    )
model = dict(backbone=backbone, neck=dict(in_channels=widths))

max_epochs = 16 if 'op_' in step else 24
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
if 'search' in step:
    test_cfg = dict(
        calibration_images=200, final_backbone=dict(base_channels=8, stem_channels=8)
    )
