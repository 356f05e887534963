"""The space of DetNAS (NeurIPS 2019): what each block of a ShuffleNetV2 is.

Choices are `stage1.0`, `stage1.1`, ... with the kind of the block as value: 0, 1 and 2
are ShuffleNetV2's block with a depthwise 3x3, 5x5 and 7x7, 3 is its Xception variant
with three depthwise 3x3. The first block of a stage halves the resolution.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import NamedTuple

from mmcr.checks import check_integer, is_list
from mmcr.errors import UserError
from mmcr.space.arch import Arch, ArchError, as_integer
from mmcr.space.presets import dilations_of
from mmcr.space.space import Choice, SearchSpace

KERNELS = (3, 5, 7, 3)  # of the depthwise convolutions, by kind
XCEPTION = 3
SHAPE = (224, 224)  # of the image for which DetNAS counts multiply-accumulates

Blocks = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class DetNASSize:
    """How deep and how wide a net of the space is, whatever its blocks are.

    Args:
        stage_blocks: Blocks per stage; strides 4, 8, 16, 32.
        stem_channels: Of the stem, at stride 2.
        stage_channels: Of the stages; even, and more in each than before it.
        last_channels: Of the 1x1 convolution before a classifier.

    Raises:
        UserError: A number breaks its rule.
    """

    stage_blocks: tuple[int, int, int, int]
    stem_channels: int
    stage_channels: tuple[int, int, int, int]
    last_channels: int = 1024

    def __post_init__(self):
        for name in ('stage_blocks', 'stage_channels'):
            values = getattr(self, name)
            if not is_list(values) or len(values) != 4:
                raise UserError(f'{name} must hold four numbers, but got {values!r}')
            for value in values:
                check_integer(f'each of {name}', value)
            object.__setattr__(self, name, tuple(values))
        for name in ('stem_channels', 'last_channels'):
            check_integer(name, getattr(self, name))
        widths = (self.stem_channels, *self.stage_channels)
        if any(a >= b for a, b in zip(widths, widths[1:])):
            raise UserError(
                'each stage must be wider than what is before it, the stem before the '
                f'first, but got stem_channels={self.stem_channels} and '
                f'stage_channels={self.stage_channels}'
            )
        if any(channels % 2 for channels in self.stage_channels):
            raise UserError(
                'blocks halve their channels, so stage_channels must be even, but got '
                f'{self.stage_channels}'
            )


DETNAS_NETS = {
    '300M': DetNASSize((4, 4, 8, 4), 16, (64, 160, 320, 640)),
    '1.3G': DetNASSize((8, 8, 16, 8), 48, (96, 240, 480, 960)),
    # the published number of parameters fits 1024 last channels, the code has 1728
    '3.8G': DetNASSize((8, 8, 16, 8), 72, (172, 432, 864, 1728), 1728),
}


def detnas_size(net: str, **changes) -> DetNASSize:
    """Returns the size of a published net ('300M', '1.3G', '3.8G'), or one derived.

    `changes` are fields of `DetNASSize` to replace; None keeps the net's own.
    """
    if net not in DETNAS_NETS:
        raise UserError(f'net must be one of {", ".join(DETNAS_NETS)}, but got {net!r}')
    given = {name: value for name, value in changes.items() if value is not None}
    return replace(DETNAS_NETS[net], **given)


def detnas_space(size: DetNASSize) -> SearchSpace:
    """Returns the space of all blocks, 4^20 for the 300M net and else 4^40.

    It has no cost: networks are counted where they are built (`mmcr.cost`).
    """
    kinds = range(len(KERNELS))
    return SearchSpace(Choice(place.choice, kinds) for place in block_places(size))


class Place(NamedTuple):
    """Where a block is: its choice, and the channels that go in and come out."""

    choice: str
    inputs: int
    outputs: int
    stride: int

    @property
    def stage(self) -> str:
        return self.choice.split('.')[0]


def block_places(size: DetNASSize) -> Iterator[Place]:
    """Yields the places of all blocks in order."""
    inputs = size.stem_channels
    stages = zip(size.stage_blocks, size.stage_channels)
    for stage, (blocks, outputs) in enumerate(stages, start=1):
        for block in range(blocks):
            stride = 2 if block == 0 else 1
            yield Place(f'stage{stage}.{block}', inputs, outputs, stride)
            inputs = outputs


def nested_blocks(blocks: Sequence, stage_blocks: Sequence[int]) -> Blocks:
    """Returns the kinds of the blocks by stage, given so or as one list.

    Raises:
        ArchError: There are not `stage_blocks`, or others than 0, 1, 2, 3.
    """
    stages = blocks if is_list(blocks) else ()
    if len(stages) == sum(stage_blocks) and not is_list(stages[0]):
        flat = iter(stages)
        stages = [tuple(islice(flat, number)) for number in stage_blocks]
    found = [len(stage) if is_list(stage) else None for stage in stages]
    if found != list(stage_blocks):
        raise ArchError(
            'blocks must hold the kind of every block, by stage or in one list, for '
            f'{list(stage_blocks)} blocks, but got {blocks!r}'
        )
    return tuple(tuple(map(_kind, stage)) for stage in stages)


def block_arch(blocks: Sequence[Sequence[int]]) -> Arch:
    """Returns the architecture with these kinds of blocks, a list per stage."""
    return Arch(
        {
            f'stage{stage}.{block}': _kind(kind)
            for stage, kinds in enumerate(blocks, start=1)
            for block, kind in enumerate(kinds)
        }
    )


def blocks_of(arch: Mapping[str, int]) -> Blocks:
    """Returns the kinds of the blocks of a complete architecture, by stage."""
    stages = dilations_of(arch)  # named alike, so nested alike
    return tuple(tuple(map(_kind, stage)) for stage in stages)


def _kind(value) -> int:
    value = as_integer(value, 'the kind of a block')
    if value not in range(len(KERNELS)):
        raise ArchError(f'the kind of a block must be 0, 1, 2 or 3, but got {value}')
    return value
