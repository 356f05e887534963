"""What a CPU computes faster than mmdet does, rounding otherwise.

RoIAlign as a weighted look-up: mmcv's kernel for CPUs (as torchvision's) sums its
samples one channel at a time. Here each cell of a RoI is a bag of pixels with weights,
and torch's `embedding_bag` adds up whole pixels, all channels at once. And backbone and
neck in channels-last format.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
import torch.nn.functional as F
from mmcv.ops import RoIAlign
from torch import Tensor, nn


def roi_align(
    features: Tensor,
    rois: Tensor,
    output_size: tuple[int, int],
    spatial_scale: float,
    sampling_ratio: int = 0,
    aligned: bool = True,
) -> Tensor:
    """What `mmcv.ops.roi_align` with ``pool_mode='avg'`` gives, up to rounding.

    Of `features`, ``N x C x H x W``, and `rois`, ``K x 5``, as in mmcv, it makes
    ``K x C x rows x columns``, contiguous, as heads that view it flat expect.
    """
    num, channels, height, width = features.shape
    rows, columns = output_size
    pixels = features.permute(0, 2, 3, 1).reshape(-1, channels)
    corners = rois[:, 1:] * spatial_scale - (0.5 if aligned else 0.0)
    sizes = corners[:, 2:] - corners[:, :2]
    if not aligned:
        sizes = sizes.clamp(min=1)
    bins = sizes / sizes.new_tensor([columns, rows])
    if sampling_ratio > 0:
        grids = torch.full_like(bins, sampling_ratio, dtype=torch.long)
    else:
        grids = bins.ceil().long()
    out = features.new_zeros(len(rois), rows, columns, channels)
    # one look-up per shape of the samples' grid; without samples a cell is zero
    shapes, members = grids.unique(dim=0, return_inverse=True)
    for shape, (across, down) in enumerate(shapes.tolist()):
        if across < 1 or down < 1:
            continue
        own = (members == shape).nonzero().squeeze(1)
        x, along_x = _samples(corners[own, 0], bins[own, 0], columns, across, width)
        y, along_y = _samples(corners[own, 1], bins[own, 1], rows, down, height)
        first = rois[own, 0].long() * (height * width)
        lines = y[:, :, None, :, None] * width + first.view(-1, 1, 1, 1, 1)
        index = lines + x[:, None, :, None, :]
        along_y, along_x = along_y / down, along_x / across
        weight = along_y[:, :, None, :, None] * along_x[:, None, :, None, :]
        bags = len(own) * rows * columns, -1
        cells = F.embedding_bag(
            index.view(bags), pixels, mode='sum', per_sample_weights=weight.view(bags)
        )
        out[own] = cells.view(-1, rows, columns, channels)
    return out.permute(0, 3, 1, 2).contiguous()


def _samples(
    start: Tensor, size: Tensor, cells: int, samples: int, limit: int
) -> tuple[Tensor, Tensor]:
    """Along one axis, the two pixels around each sample and their weights.

    Args:
        start: Of each RoI, in pixels of the features.
        size: Of one of its cells.
        cells: Per RoI.
        samples: Per cell.
        limit: Number of pixels.

    Returns:
        Indices and weights, both ``RoIs x cells x 2 samples``.
    """
    cell = torch.arange(cells, dtype=start.dtype)
    sample = torch.arange(samples, dtype=start.dtype) + 0.5
    # in the order of mmcv's kernel, so that the sums round alike
    at = (start[:, None] + cell * size[:, None])[:, :, None] + (
        sample * size[:, None] / samples
    )[:, None, :]
    inside = (at >= -1) & (at <= limit)
    at = at.clamp(0, limit - 1)
    low = at.floor()
    part = at - low
    pixels = torch.stack([low, (low + 1).clamp(max=limit - 1)], -1).long()
    weights = torch.stack([1 - part, part], -1) * inside[..., None]
    return pixels.flatten(2), weights.flatten(2)


@contextmanager
def fast_paths(model: nn.Module) -> Iterator[None]:
    """Lets a detector on a CPU run in both ways; for inference in float32.

    RoIAlign layers of other types, such as a user's own, and those that take the
    maximum stay as they are.
    """
    layers = [module for module in model.modules() if type(module) is RoIAlign]
    layers = [layer for layer in layers if layer.pool_mode == 'avg']
    for layer in layers:
        layer.forward = partial(_forward, layer)
    try:
        with _channels_last(model):
            yield
    finally:
        for layer in layers:
            del layer.forward


def _forward(layer: RoIAlign, features: Tensor, rois: Tensor) -> Tensor:
    if torch.is_grad_enabled() or features.dtype != torch.float32:
        return RoIAlign.forward(layer, features, rois)
    options = layer.output_size, layer.spatial_scale, layer.sampling_ratio
    return roi_align(features, rois, *options, layer.aligned)


@contextmanager
def _channels_last(model: nn.Module) -> Iterator[None]:
    """Runs backbone and neck in channels-last format, where both can.

    What leaves the neck has the usual format again: mmcv's RoIAlign takes that for
    granted, as mmcv's other compiled operators do.
    """
    parts = [model.backbone, model.neck] if model.with_neck else []
    modules = [module for part in parts for module in part.modules()]
    if not parts or not all(map(_takes_any_format, modules)):
        yield
        return
    for part in parts:
        part.to(memory_format=torch.channels_last)
    usual = model.neck.register_forward_hook(
        lambda module, inputs, outs: tuple(out.contiguous() for out in outs)
    )
    try:
        with usual:  # removed at the end
            yield
    finally:
        for part in parts:
            part.to(memory_format=torch.contiguous_format)


def _takes_any_format(module: nn.Module) -> bool:
    """Whether all its operators are torch's, which are right in every format.

    mmcv's compiled ones, such as deformable convolutions, give wrong values in
    channels-last format, without a word. In these packages only modules of `mmcv.ops`
    call them; of other packages nothing is known.
    """
    package, *rest = type(module).__module__.split('.')
    return package in ('torch', 'mmengine', 'mmdet', 'mmcr') or (
        package == 'mmcv' and rest[:1] != ['ops']
    )
