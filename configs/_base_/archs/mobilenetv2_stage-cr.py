# MobileNetV2, stages reallocated (CR-NAS, Table 5).
cr_backbone = dict(
    _delete_=True,
    type='mmcr.CRMobileNetV2',
    stage_blocks=(2, 2, 3, 4, 4),
    out_indices=(1, 2, 4, 7),
    norm_eval=False,
)
cr_neck_in_channels = [24, 32, 96, 1280]
# For a detector with such a backbone, whose other settings stay.
cr_arch = {
    key: value
    for key, value in cr_backbone.items()
    if key not in ('_delete_', 'out_indices', 'norm_eval')
}
cr_arch['reallocated_start'] = True
