# DetNAS 300M, found for Faster R-CNN + FPN on VOC.
cr_backbone = dict(
    _delete_=True,
    type='mmcr.DetNASNet',
    net='300M',
    blocks=(
        (2, 1, 0, 3),
        (1, 3, 0, 3),
        (2, 0, 1, 1, 3, 3, 3, 3),
        (3, 3, 3, 1),
    ),
)
cr_neck_in_channels = [64, 160, 320, 640]
