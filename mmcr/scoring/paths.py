"""Runs many paths of a supernet on one batch, shared beginnings once."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby

from torch import Tensor, nn

from mmcr.space.arch import Arch

# The values of all choices up to a step, that step's included, with its index.
Prefix = tuple[int, tuple[int, ...]]


def prefixes_of(backbone: nn.Module, arch: Arch) -> list[Prefix]:
    """The prefix of every step of a complete architecture."""
    prefixes, values = [], ()
    for depth, step in enumerate(backbone.steps()):
        values += tuple(arch[name] for name in step.choices)
        prefixes.append((depth, values))
    return prefixes


def run_paths(
    backbone: nn.Module,
    archs: Sequence[Arch],
    images: Tensor,
    run_step: Callable,
) -> Iterator[tuple[list[int], tuple[Tensor, ...]]]:
    """Runs every architecture on `images`; each distinct prefix runs once.

    Depth first, so that at any time only the features of one path are alive.

    Args:
        backbone: A searchable backbone in supernet mode.
        archs: Complete members of its space.
        images: ``N x C x H x W``.
        run_step: Called as ``run_step(prefix, step, x)`` with the architecture
            set; returns the step's output.

    Yields:
        The indices into `archs` of those that share one complete path, and the
        backbone's outputs for it.
    """
    steps = backbone.steps()

    def descend(depth: int, members: list[int], key: tuple, x: Tensor, outs: tuple):
        if depth == len(steps):
            yield members, outs
            return
        step = steps[depth]

        def decided(index: int) -> tuple:
            return tuple(archs[index][name] for name in step.choices)

        for values, same in groupby(sorted(members, key=decided), key=decided):
            same = list(same)
            prefix = key + values
            backbone.set_arch(archs[same[0]])
            y = run_step((depth, prefix), step, x)
            found = (step.output(y),) if step.is_output else ()
            yield from descend(depth + 1, same, prefix, y, outs + found)

    if archs:
        yield from descend(0, list(range(len(archs))), (), images, ())


@contextmanager
def untouched(model: nn.Module, backbone: nn.Module) -> Iterator[None]:
    """Gives back modes, buffers and the active architecture at the end."""
    arch = backbone.arch
    modes = [(m, m.training) for m in model.modules()]
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    momenta = [(m, m.momentum) for m in model.modules() if hasattr(m, 'momentum')]
    try:
        yield
    finally:
        for buffer, value in buffers:
            buffer.copy_(value)
        for module, momentum in momenta:
            module.momentum = momentum
        for module, training in modes:
            module.training = training
        backbone.set_arch(arch)
