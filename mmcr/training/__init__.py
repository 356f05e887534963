"""How a supernet is trained: which path next, exactly resumed, watched."""

from mmcr.training.active_path_ddp import ActivePathDDP
from mmcr.training.checkpoint_hook import WholeCheckpointHook
from mmcr.training.in_place_distillation_hook import InPlaceDistillationHook
from mmcr.training.layer_decay import LayerDecay
from mmcr.training.paired_init_hook import PairedInitHook
from mmcr.training.path_log_hook import PathLogHook
from mmcr.training.resume_hook import ExactResumeHook
from mmcr.training.samplers import (
    CostUniformSampler,
    PathSampler,
    SandwichSampler,
    StrictlyFairSampler,
    UniformSampler,
)
from mmcr.training.sampling_hook import ArchSamplingHook

__all__ = [
    'ActivePathDDP',
    'ArchSamplingHook',
    'CostUniformSampler',
    'ExactResumeHook',
    'InPlaceDistillationHook',
    'LayerDecay',
    'PairedInitHook',
    'PathLogHook',
    'PathSampler',
    'SandwichSampler',
    'StrictlyFairSampler',
    'UniformSampler',
    'WholeCheckpointHook',
]
