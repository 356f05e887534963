# One bottleneck supernet serves every number of blocks: R50 and R101 alike.
_base_ = [
    '../_base_/models/faster-rcnn_supernet_r50.py',
    '../_base_/datasets/coco_archsearch.py',
    '../_base_/schedules/schedule_2x.py',
    'mmdet::_base_/default_runtime.py',
    '../_base_/supernet_training.py',
]

# Paths are drawn strictly fairly; the paper's are mmcr.UniformSampler's, whose choice
# was further behind the best network trained alone (benchmarks/results/ranking.md).
custom_hooks = _base_.supernet_hooks
custom_hooks[0]['sampler'] = dict(type='mmcr.StrictlyFairSampler')

val_cfg = dict(
    _delete_=True,
    type='mmcr.ArchValLoop',
    archs=dict(baseline=[3, 4, 6, 3], shallow=[10, 2, 2, 2], deep=[1, 1, 3, 11]))
