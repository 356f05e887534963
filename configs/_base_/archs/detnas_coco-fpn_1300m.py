# DetNAS 1.3G, found for Faster R-CNN + FPN on COCO.
cr_backbone = dict(
    _delete_=True,
    type='mmcr.DetNASNet',
    net='1.3G',
    blocks=(
        (0, 0, 3, 1, 2, 1, 0, 2),
        (0, 3, 1, 2, 3, 3, 2, 0),
        (2, 1, 1, 3, 2, 0, 2, 2, 2, 1, 3, 1, 0, 3, 3, 3),
        (1, 3, 3, 3, 3, 3, 3, 3),
    ),
)
cr_neck_in_channels = [96, 240, 480, 960]
