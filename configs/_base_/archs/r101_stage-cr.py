# ResNet-101, stages reallocated (CR-NAS, Table 5).
cr_backbone = dict(
    _delete_=True,
    type='mmcr.CRResNet',
    depth=101,
    stage_blocks=(2, 3, 17, 11),
    norm_eval=False,
)
cr_neck_in_channels = [256, 512, 1024, 2048]
# For a detector with such a backbone, whose other settings stay.
cr_arch = {
    key: value
    for key, value in cr_backbone.items()
    if key not in ('_delete_', 'norm_eval')
}
cr_arch['reallocated_start'] = True
