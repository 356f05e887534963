# ResNet-50, stages and dilations reallocated (CR-NAS, Tables 5 and 6).
cr_backbone = dict(
    _delete_=True,
    type='mmcr.CRResNet',
    depth=50,
    stage_blocks=(1, 3, 5, 7),
    dilations=(
        (1,),
        (1, 2, 1),
        (1, 1, 2, 3, 1),
        (1, 2, 1, 3, 2, 2, 3),
    ),
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
