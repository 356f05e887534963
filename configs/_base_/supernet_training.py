# What supernets are trained with: one path an iteration, alike on all devices. A config
# says custom_hooks = _base_.supernet_hooks, after those of its detector if it has any:
# [*_base_.custom_hooks, *_base_.supernet_hooks].
supernet_hooks = [
    dict(type='mmcr.ArchSamplingHook', seed=0),
    dict(type='mmcr.ExactResumeHook'),
    dict(type='mmcr.PathLogHook'),
]
model_wrapper_cfg = dict(type='mmcr.ActivePathDDP')
