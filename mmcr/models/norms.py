"""Which modules are batch norms."""

from mmcv.ops import SyncBatchNorm
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def is_batch_norm(module: nn.Module) -> bool:
    """Whether it is a batch norm of torch's or mmcv's kinds, synchronised or not."""
    return isinstance(module, (_BatchNorm, SyncBatchNorm))


def learns_statistics(module: nn.Module) -> bool:
    """Whether it is a batch norm whose next forward updates running statistics."""
    return is_batch_norm(module) and module.training and module.track_running_stats
