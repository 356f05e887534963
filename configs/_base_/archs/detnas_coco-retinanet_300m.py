# DetNAS 300M, found for RetinaNet on COCO.
cr_backbone = dict(
    _delete_=True,
    type='mmcr.DetNASNet',
    net='300M',
    blocks=(
        (2, 3, 1, 1),
        (3, 2, 1, 3),
        (3, 1, 1, 1, 3, 3, 2, 0),
        (3, 3, 3, 3),
    ),
    out_indices=(1, 2, 3),
)
cr_neck_in_channels = [160, 320, 640]
