# ResNet-18 as it is, in the form that the reallocated ones have.
cr_backbone = dict(
    _delete_=True,
    type='mmcr.CRResNet',
    depth=18,
    stage_blocks=(2, 2, 2, 2),
    norm_eval=False,
)
cr_neck_in_channels = [64, 128, 256, 512]
# For a detector with such a backbone, whose other settings stay.
cr_arch = {
    key: value
    for key, value in cr_backbone.items()
    if key not in ('_delete_', 'norm_eval')
}
cr_arch['reallocated_start'] = True
