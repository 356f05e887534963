"""Counts multiply-accumulates with torch's `FlopCounterMode`, part by part.

Convolutions and matrix products are counted where they are dispatched; a `Convention`
adds what else it counts. Shapes are enough, so networks run on torch's device meta.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from math import prod

import torch
from mmcv.ops import DeformConv2d, ModulatedDeformConv2d
from mmdet.models.roi_heads.roi_extractors import BaseRoIExtractor, SingleRoIExtractor
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.flop_counter import FlopCounterMode

aten = torch.ops.aten


@dataclass(frozen=True)
class Convention:
    """What counts beside convolutions and matrix products, and how many RoIs run.

    Args:
        meaning: In words, for tables.
        operators: By operator, multiply-accumulates as a function of the shapes of its
            arguments and of ``out_shape``.
        layers: Those that count one per element of their output.
        proposals: RoIs of the box head; ``None``: those of the config's RPN in tests.
        masks: RoIs of the mask head; ``None``: the config's detections per image.
    """

    meaning: str
    operators: Mapping[object, Callable[..., int]] = field(default_factory=dict)
    layers: tuple[type[nn.Module], ...] = ()
    proposals: int | None = None
    masks: int | None = None


def _batch_norm(x, weight, bias, mean, var, is_training, *_, **__) -> int:
    return prod(x) * ((4 if is_training else 1) + (weight is not None))


def _norm(x, other, weight, *_, **__) -> int:
    return prod(x) * (4 + (weight is not None))


def _average(x, dims=None, keepdim=False, **_) -> int:
    # what adaptive pooling to one element becomes
    return prod(x) if keepdim and list(dims or ()) == [-1, -2] else 0


def _per_output(macs: int) -> Callable[..., int]:
    return lambda *_, out_shape, **__: macs * prod(out_shape)


PRODUCTS = Convention('multiply-accumulates of convolutions and matrix products')
CONVENTIONS = {
    'mmengine': Convention(
        "mmengine's count: multiply-accumulates of convolutions and matrix products, "
        '2 per element of batch norm, 1 of upsampling, none for ReLU and RoIAlign',
        operators={
            aten.native_batch_norm: _batch_norm,
            aten.native_group_norm: lambda x, weight, *_, **__: _norm(x, None, weight),
            aten.native_layer_norm: _norm,
            aten.upsample_nearest2d: _per_output(1),
            aten.upsample_bilinear2d: _per_output(4),
            aten.grid_sampler_2d: _per_output(4),
            aten._adaptive_avg_pool2d: lambda x, *_, **__: prod(x),
            aten.mean: _average,
        },
    ),
    # fitted to the paper's figures, which come without a definition
    'paper': Convention(
        "CR-NAS's count: multiply-accumulates of convolutions and matrix products, "
        '1 per element of batch norm and ReLU layers, none for RoIAlign',
        # layers only: mmdet's functional calls, as the RPN's ReLU, stay out
        layers=(_BatchNorm, nn.ReLU, nn.ReLU6),
        proposals=2000,
        masks=128,
    ),
}


class MacsCounter:
    """Counts what runs in its context."""

    def __init__(self, rule: Convention = PRODUCTS) -> None:
        self._flops = FlopCounterMode(display=False, custom_mapping=_formulas(rule))
        self._layers = rule.layers
        self._elements = 0
        self._hooks = ExitStack()

    @property
    def total(self) -> int:
        """Multiply-accumulates so far."""
        return self._flops.get_total_flops() // 2 + self._elements

    def __enter__(self) -> 'MacsCounter':
        self._flops.__enter__()
        return self

    def __exit__(self, *error) -> None:
        self._flops.__exit__(*error)
        self._hooks.close()

    def watch(
        self, parts: Mapping[str, nn.Module], found: Callable[[str, int, object], None]
    ) -> None:
        """Reports what each call of a part costs, without what other parts run in it.

        A part whose own forward is not called, as a list, reports the calls of the
        outermost modules inside it. Modules of several parts are of the first.

        Args:
            parts: By name.
            found: Takes a part's name, what one call costs and its result.
        """
        running = []  # modules in a call: part, total before, cost of other parts

        def enter(name: str, module: nn.Module, inputs: tuple) -> None:
            running.append([name, self.total, 0])

        def leave(module: nn.Module, inputs: tuple, output: object) -> None:
            if isinstance(module, self._layers):
                self._elements += output.numel()
            name, before, others = running.pop()
            if running and running[-1][0] == name:
                running[-1][2] += others
                return
            macs = self.total - before
            found(name, macs - others, output)
            if running:
                running[-1][2] += macs

        owners = {}
        for name, part in parts.items():
            for module in part.modules():
                owners.setdefault(module, name)
        for module, name in owners.items():
            before_call = partial(enter, name)
            self._hooks.enter_context(module.register_forward_pre_hook(before_call))
            self._hooks.enter_context(module.register_forward_hook(leave))


def _formulas(rule: Convention) -> dict[object, Callable[..., int]]:
    # torch looks for overloads too, lest it decompose an operator before it is counted
    return {
        each: lambda *shapes, macs=macs, **named: 2 * macs(*shapes, **named)
        for op, macs in rule.operators.items()
        for each in (op, *(getattr(op, name) for name in op.overloads()))
    }


def params_of(*modules: nn.Module) -> int:
    """Returns how many parameters modules have, trained or not."""
    return sum(p.numel() for module in modules for p in module.parameters())


@contextmanager
def shapes_only(*modules: nn.Module) -> Iterator[None]:
    """Layers that need more than shapes run as some that cost the same.

    Deformable convolutions run as plain ones, and RoI extractors take all RoIs from
    one level. Numbers that come out are meaningless.
    """
    with ExitStack() as stack:
        for layer, forward in dict(_stand_ins(modules)).items():
            layer.forward = forward
            stack.callback(delattr, layer, 'forward')
        yield


def _stand_ins(
    modules: Iterable[nn.Module],
) -> Iterator[tuple[nn.Module, Callable[..., Tensor]]]:
    for module in (inside for outer in modules for inside in outer.modules()):
        if isinstance(module, (DeformConv2d, ModulatedDeformConv2d)):
            yield module, partial(_plain_conv, module)
        elif isinstance(module, BaseRoIExtractor):
            for layer in module.roi_layers:
                yield layer, partial(_regions, layer.output_size)
            if isinstance(module, SingleRoIExtractor):
                yield module, partial(_regions, module.roi_layers[0].output_size)


def _plain_conv(layer: nn.Module, x: Tensor, *offsets: Tensor) -> Tensor:
    if hasattr(layer, 'conv_offset'):
        layer.conv_offset(x)
    geometry = layer.stride, layer.padding, layer.dilation, layer.groups
    return functional.conv2d(x, layer.weight, None, *geometry)


def _regions(
    size: tuple[int, int], features: Tensor | Sequence[Tensor], rois: Tensor, *_, **__
) -> Tensor:
    channels = features[0].shape[-3]  # of one image, or of the first level
    return rois.new_zeros(len(rois), channels, *size)
