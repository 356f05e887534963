"""Sampling, calibration, scoring and search as parts of an mmengine Runner."""

from mmcr.engine.active_path_ddp import ActivePathDDP
from mmcr.engine.calibration import PathNorms
from mmcr.engine.checkpoint import CheckpointError, check_supernet_checkpoint
from mmcr.engine.evaluator import CandidateEvaluator
from mmcr.engine.loops import ArchValLoop
from mmcr.engine.metric import UnroundedCocoMetric
from mmcr.engine.paired_init_hook import PairedInitHook
from mmcr.engine.path_log_hook import PathLogHook
from mmcr.engine.resume_hook import ExactResumeHook
from mmcr.engine.sampling_hook import ArchSamplingHook
from mmcr.engine.search_loop import ArchSearchLoop

__all__ = [
    'ActivePathDDP',
    'ArchSamplingHook',
    'ArchSearchLoop',
    'ArchValLoop',
    'CandidateEvaluator',
    'CheckpointError',
    'ExactResumeHook',
    'PairedInitHook',
    'PathLogHook',
    'PathNorms',
    'UnroundedCocoMetric',
    'check_supernet_checkpoint',
]
