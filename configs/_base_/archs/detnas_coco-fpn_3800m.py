# DetNAS 3.8G: the blocks found for Faster R-CNN + FPN on COCO at 1.3G, wider.
cr_backbone = dict(
    _delete_=True,
    type='mmcr.DetNASNet',
    net='3.8G',
    blocks=(
        (0, 0, 3, 1, 2, 1, 0, 2),
        (0, 3, 1, 2, 3, 3, 2, 0),
        (2, 1, 1, 3, 2, 0, 2, 2, 2, 1, 3, 1, 0, 3, 3, 3),
        (1, 3, 3, 3, 3, 3, 3, 3),
    ),
)
cr_neck_in_channels = [172, 432, 864, 1728]
