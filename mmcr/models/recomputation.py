"""Activation checkpointing (`with_cp`) that supernet training can use.

mmdet's blocks call torch's reentrant variant: it crashes under DDP with
``find_unused_parameters``, and its second forward moves the norms' running
statistics once more.
"""

from contextlib import nullcontext
from functools import partial
from types import MethodType

import torch
from mmcv.cnn.bricks import DropPath
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmcr.models.layer_choice import LayerChoice
from mmcr.models.norms import is_batch_norm


def recompute_blocks(backbone: nn.Module) -> None:
    """Blocks of `backbone` built `with_cp` checkpoint themselves this way."""
    for block in backbone.modules():
        if block is not backbone and getattr(block, 'with_cp', False):
            block.with_cp = False
            block.forward = MethodType(_checkpointed, block)


def _checkpointed(block: nn.Module, x: Tensor) -> Tensor:
    forward = partial(type(block).forward, block)
    # the first block behind frozen ones learns from an input that needs no gradient
    learns = x.requires_grad or any(p.requires_grad for p in block.parameters())
    if not (learns and torch.is_grad_enabled()):
        return forward(x)
    return checkpoint(
        forward,
        x,
        use_reentrant=False,
        context_fn=lambda: (nullcontext(), _Again(block)),
    )


#: What of a block follows the path: the option, and the rate of stochastic depth.
PATH = ((LayerChoice, 'active'), (DropPath, 'drop_prob'))


class _Again:
    """The second forward: the path is that of the first, and no buffer moves."""

    def __init__(self, block: nn.Module) -> None:
        self.path = [
            (module, name, getattr(module, name))
            for module in block.modules()
            for kind, name in PATH
            if isinstance(module, kind)
        ]
        self.block = block

    def __enter__(self) -> None:
        self.then = [
            (place, name, getattr(place, name)) for place, name, _ in self.path
        ]
        self.buffers = [
            (norm, name, buffer)
            for norm in self.block.modules()
            if is_batch_norm(norm) and norm.training
            for name, buffer in norm.named_buffers(recurse=False)
        ]
        for place, name, value in self.path:
            setattr(place, name, value)
        for norm, name, buffer in self.buffers:
            setattr(norm, name, buffer.clone())

    def __exit__(self, *error) -> None:
        for place, name, value in self.then:
            setattr(place, name, value)
        for norm, name, buffer in self.buffers:
            setattr(norm, name, buffer)
