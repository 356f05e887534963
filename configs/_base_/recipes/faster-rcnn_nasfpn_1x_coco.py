# NAS-FPN, 7 cells of 384 channels, in the place of FPN. Its levels are P3 to P7:
# anchors keep FPN's sizes (32 to 512), and RoIs their levels, those of P2 at P3.
_base_ = './faster-rcnn_fpn_1x_coco.py'

channels = 384
model = dict(
    data_preprocessor=dict(pad_size_divisor=128),  # P7's stride
    neck=dict(
        _delete_=True,
        type='NASFPN',
        in_channels=[256, 512, 1024, 2048],
        out_channels=channels,
        num_outs=5,
        stack_times=7,
        start_level=1,
        norm_cfg=dict(type='BN', requires_grad=True)),
    rpn_head=dict(
        in_channels=channels,
        feat_channels=channels,
        anchor_generator=dict(scales=[4], strides=[8, 16, 32, 64, 128])),
    roi_head=dict(
        bbox_roi_extractor=dict(
            out_channels=channels, featmap_strides=[8, 16, 32], finest_scale=112),
        bbox_head=dict(in_channels=channels)))
