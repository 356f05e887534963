# Found by search: 0.2062 on archval with supernet weights.
cr_backbone = dict(
    _delete_=True,
    type='mmcr.CRResNet',
    depth=18,
    stage_blocks=(2, 1, 2, 2),
    base_channels=2,
    norm_eval=False,
    zero_init_residual=False,
    stem_channels=4,
)
cr_neck_in_channels = [2, 4, 8, 16]
