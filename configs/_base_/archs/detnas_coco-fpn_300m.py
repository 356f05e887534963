# DetNAS 300M, found for Faster R-CNN + FPN on COCO.
cr_backbone = dict(
    _delete_=True,
    type='mmcr.DetNASNet',
    net='300M',
    blocks=(
        (2, 1, 2, 0),
        (2, 1, 1, 2),
        (3, 3, 1, 3, 0, 0, 3, 1),
        (3, 1, 3, 2),
    ),
)
cr_neck_in_channels = [64, 160, 320, 640]
