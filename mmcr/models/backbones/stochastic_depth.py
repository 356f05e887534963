"""What backbones with stochastic depth share (Huang et al., ECCV 2016)."""

import copy

import torch
from mmcv.cnn.bricks import DropPath
from mmengine.model import Sequential
from torch import nn
from torch.overrides import TorchFunctionMode

from mmcr.models.reallocated_backbone import ReallocatedBackbone
from mmcr.space import Arch


class NumbersOnCPU(TorchFunctionMode):
    """torch.linspace has numbers, which constructors want, on meta too."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        on_cpu = dict(device='cpu') if func is torch.linspace else {}
        return func(*args, **{**(kwargs or {}), **on_cpu})


class DroppingPaths(ReallocatedBackbone):
    """Mixin: stochastic depth.

    The rates rise evenly from 0 at a network's first block to `drop_path_rate` at its
    last. So they do along the path of a supernet: a shared block has the rate that it
    has in the fixed network of that path.
    """

    drop_path_rate: float

    def set_arch(self, arch: Arch) -> None:
        """Makes a member of the space the path of every forward from now on."""
        super().set_arch(arch)
        self._spread_drop_path()

    def _spread_drop_path(self) -> None:
        stages = [stage for stage, *_ in self._stages()]
        blocks = [b for part in stages for b in getattr(part, 'active_option', part)]
        rates = torch.linspace(0, self.drop_path_rate, len(blocks), device='cpu')
        for block, rate in zip(blocks, rates.tolist()):
            for module in block.modules():
                if isinstance(module, DropPath):
                    module.drop_prob = rate


def first(blocks: nn.ModuleList, count: int) -> Sequential:
    """A stage of so many of its first blocks; of fewer than all copies."""
    part = blocks[:count]
    return Sequential(*(part if count == len(blocks) else copy.deepcopy(part)))
