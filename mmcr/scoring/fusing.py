"""Norms folded into the convolutions before them, for one run of a step.

What mmcv's `fuse_conv_bn` does for good to a fixed network, done for as long as a
path runs: a supernet's convolution is followed by other statistics on every path.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial

from mmengine.dist import all_gather_object
from torch import Tensor, nn


class ConvNormPairs:
    """Which convolution a norm's input comes from, found by watching both run.

    A convolution's output is taken to go to its norm alone, within one step.

    Args:
        modules: Of the backbone, in the same order on all ranks.
        norms: The norms to find partners for.
    """

    def __init__(self, modules: Iterable[nn.Module], norms: Iterable[nn.Module]):
        self._modules = list(modules)
        self._convs = [
            module
            for module in self._modules
            if type(module).forward is nn.Conv2d.forward
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
            self._note(norm, last[0] if inputs[0] is last[1] else None)

        handles = [conv.register_forward_hook(convolved) for conv in self._convs]
        handles += [norm.register_forward_pre_hook(normed) for norm in self._norms]
        try:
            yield
        finally:
            last.clear()
            for handle in handles:
                handle.remove()

    def agree(self) -> None:
        """Adds what the other ranks have noted: some may have had no batch to watch."""
        places = {module: i for i, module in enumerate(self._modules)}
        places[None] = None
        noted = [(places[norm], places[conv]) for norm, conv in self._partner.items()]
        for pairs in all_gather_object(noted):
            for norm, conv in pairs:
                self._note(
                    self._modules[norm], None if conv is None else self._modules[conv]
                )

    def _note(self, norm: nn.Module, conv: nn.Module | None) -> None:
        # one that changes cannot be folded into either
        if self._partner.setdefault(norm, conv) is not conv:
            self._partner[norm] = None

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
