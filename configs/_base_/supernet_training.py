# What supernets are trained with: one path an iteration, alike on all devices.
custom_hooks = [
    dict(type='mmcr.ArchSamplingHook', seed=0),
    dict(type='mmcr.ExactResumeHook'),
    dict(type='mmcr.PathLogHook'),
]
model_wrapper_cfg = dict(type='mmcr.ActivePathDDP')
