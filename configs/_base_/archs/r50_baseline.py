# ResNet-50 as it is, in the form that the reallocated ones have.
cr_backbone = dict(
    _delete_=True,
    type='mmcr.CRResNet',
    depth=50,
    stage_blocks=(3, 4, 6, 3),
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
