# DetNAS 300M, found for RetinaNet on VOC.
cr_backbone = dict(
    _delete_=True,
    type='mmcr.DetNASNet',
    net='300M',
    blocks=(
        (1, 3, 0, 0),
        (2, 3, 3, 3),
        (2, 3, 3, 3, 3, 2, 2, 0),
        (2, 3, 1, 1),
    ),
    out_indices=(1, 2, 3),
)
cr_neck_in_channels = [160, 320, 640]
