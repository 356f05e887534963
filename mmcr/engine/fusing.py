"""Norms folded into the convolutions before them, for one run of a step.

What mmcv's `fuse_conv_bn` does for good to a fixed network, done for as long as a
path runs: a supernet's convolution is followed by other statistics on every path.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial

from torch import Tensor, nn


class ConvNormPairs:
    """Which convolution a norm's input comes from, found by watching both run.

    Args:
        modules: Of the backbone.
        norms: The norms to find partners for.
    """

    def __init__(self, modules: Iterable[nn.Module], norms: Iterable[nn.Module]):
        self._convs = [
            module for module in modules if type(module).forward is nn.Conv2d.forward
        ]
        self._norms = list(norms)
        self._partner: dict[nn.Module, nn.Conv2d | None] = {}

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Notes the partners of the norms that run meanwhile."""
        last: list = [None, None]

        def convolved(conv: nn.Module, _, output: Tensor) -> None:
            last[:] = conv, output

        def normed(norm: nn.Module, inputs: tuple) -> None:
            conv = last[0] if inputs[0] is last[1] else None
            # one that changes cannot be folded into either
            if self._partner.setdefault(norm, conv) is not conv:
                self._partner[norm] = None

        handles = [conv.register_forward_hook(convolved) for conv in self._convs]
        handles += [norm.register_forward_pre_hook(normed) for norm in self._norms]
        try:
            yield
        finally:
            last.clear()
            for handle in handles:
                handle.remove()

    def of(self, norms: Iterable[nn.Module]) -> dict[nn.Module, nn.Conv2d]:
        """The convolution of each of these norms that has one to itself."""
        found = {norm: self._partner.get(norm) for norm in norms}
        convs = list(found.values())
        return {
            norm: conv
            for norm, conv in found.items()
            if conv is not None and convs.count(conv) == 1
        }


@contextmanager
def folded(
    pairs: Mapping[nn.Module, nn.Conv2d],
    factors: Mapping[nn.Module, tuple[Tensor, Tensor]],
) -> Iterator[None]:
    """Convolutions do what their norms would: scale and shift each channel.

    Args:
        pairs: From norm to convolution.
        factors: Of each norm, one scale and one shift per channel.
    """
    for norm, conv in pairs.items():
        scale, shift = factors[norm]
        weight = conv.weight * scale.view(-1, 1, 1, 1)
        bias = shift if conv.bias is None else conv.bias * scale + shift
        conv.forward = partial(conv._conv_forward, weight=weight, bias=bias)
        norm.forward = _same
    try:
        yield
    finally:
        for norm, conv in pairs.items():
            del conv.forward, norm.forward


def _same(x: Tensor) -> Tensor:
    return x
