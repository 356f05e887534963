# ShuffleNetV2 as it is, with 3x3 convolutions alone.
cr_backbone = dict(
    _delete_=True,
    type='mmcr.DetNASNet',
    net='300M',
    blocks=(
        (0, 0, 0, 0),
        (0, 0, 0, 0),
        (0, 0, 0, 0, 0, 0, 0, 0),
        (0, 0, 0, 0),
    ),
)
cr_neck_in_channels = [64, 160, 320, 640]
