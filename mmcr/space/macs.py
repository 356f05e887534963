"""Multiply-accumulates of a backbone's convolutions, by arithmetic and exactly.

What a stage costs depends on its own number of blocks alone, since channels and
resolutions do not move with the blocks. So these costs add up over the stages and
serve as the `cost` of a `SearchSpace`: a budget in multiply-accumulates instead of
in blocks. Norms, activations and pooling are not counted; dilation costs nothing.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from math import floor

from mmcr.errors import UserError
from mmcr.space.presets import mobilenetv2_stage_blocks, stage_arch

Size = tuple[int, int]


@dataclass(frozen=True)
class BackboneMacs(ABC):
    """What a backbone costs for one image.

    Called with the name of a stage choice and a number of blocks, it returns the
    stage's share; what no choice decides (stem, last conv) is in `stage1`'s share,
    so that the shares of all stages add up to the backbone.

    Args:
        shape: Height and width of the input in pixels; any, odd ones too.

    Raises:
        UserError: An argument, or the name of a choice, breaks its rule.
    """

    shape: Size
    num_stages = 4

    def __post_init__(self):
        if len(self.shape) != 2 or min(self.shape) < 1:
            raise UserError(
                f'shape must be a height and a width in pixels, but got {self.shape}'
            )

    def __call__(self, choice: str, blocks: int) -> int:
        names = [f'stage{stage}' for stage in range(1, self.num_stages + 1)]
        if choice not in names:
            raise UserError(
                f'multiply-accumulates are counted for {", ".join(names)}, but got '
                f'the choice {choice}'
            )
        stage = names.index(choice)
        return self._stage(stage, blocks) + (self._others() if stage == 0 else 0)

    def total(self, stage_blocks: Sequence[int]) -> int:
        """Returns what the whole backbone costs with so many blocks per stage."""
        arch = stage_arch(stage_blocks)
        if len(arch) != self.num_stages:
            raise UserError(
                f'stage_blocks must hold {self.num_stages} numbers of blocks, but '
                f'got {list(stage_blocks)}'
            )
        return sum(self(name, blocks) for name, blocks in arch.items())

    @abstractmethod
    def _stage(self, stage: int, blocks: int) -> int:
        """Returns the cost of a stage, counted from 0."""

    @abstractmethod
    def _others(self) -> int:
        """Returns the cost of all that is in no searched stage."""


@dataclass(frozen=True)
class ResNetMacs(BackboneMacs):
    """What mmdet's `ResNet` and `CRResNet` cost.

    Args:
        shape: As in `BackboneMacs`.
        depth: 18 or 34 for basic blocks, other depths for bottlenecks.
        base_channels: Width of the first stage.
        stem_channels: Width of the stem (one 7x7 conv); None: `base_channels`.
        in_channels: Of the image.
        style: 'pytorch' or 'caffe': whether the 3x3 or the first 1x1 of a
            bottleneck has the stride.
    """

    depth: int = 50
    base_channels: int = 64
    stem_channels: int | None = None
    in_channels: int = 3
    style: str = 'pytorch'

    def _others(self) -> int:
        return _conv(
            reduced(self.shape, 2), self.in_channels, self._channels_before(0), kernel=7
        )

    def _stage(self, stage: int, blocks: int) -> int:
        # stem and pooling reach stride 4, every stage but the first halves it
        before = reduced(self.shape, 4 * 2 ** max(stage - 1, 0))
        size = reduced(self.shape, 4 * 2**stage)
        inputs, outputs = self._channels_before(stage), self._channels_before(stage + 1)
        first = self._block(stage, before, size, inputs)
        if stage > 0 or inputs != outputs:
            first += _conv(size, inputs, outputs)
        return first + (blocks - 1) * self._block(stage, size, size, outputs)

    def _block(self, stage: int, before: Size, size: Size, inputs: int) -> int:
        outputs = self._channels_before(stage + 1)
        if self._is_basic:
            return _conv(size, inputs, outputs, 3) + _conv(size, outputs, outputs, 3)
        width = self._inner_width(stage)
        return (
            _conv(before if self.style == 'pytorch' else size, inputs, width)
            + _conv(size, width, width, 3, self._groups)
            + _conv(size, width, outputs)
        )

    @property
    def _is_basic(self) -> bool:
        return self.depth in (18, 34)

    @property
    def _groups(self) -> int:
        return 1

    def _inner_width(self, stage: int) -> int:
        return self.base_channels * 2**stage

    def _channels_before(self, stage: int) -> int:
        if stage == 0:
            return self.stem_channels or self.base_channels
        return self.base_channels * 2 ** (stage - 1) * (1 if self._is_basic else 4)


@dataclass(frozen=True)
class ResNeXtMacs(ResNetMacs):
    """What mmdet's `ResNeXt` and `CRResNeXt` cost.

    Args:
        groups: Of the 3x3 convs.
        base_width: Channels of a group in the first stage; None as in `CRResNeXt`:
            4 for 64 `base_channels` and in proportion for others, at least 1.
    """

    groups: int = 32
    base_width: int | None = None

    @property
    def _groups(self) -> int:
        return self.groups

    def _inner_width(self, stage: int) -> int:
        planes = self.base_channels * 2**stage
        if self.groups == 1:
            return planes
        base_width = self.base_width or max(1, 4 * self.base_channels // 64)
        # in floating point, and in this order, because mmdet rounds it so
        return floor(planes * (base_width / self.base_channels)) * self.groups


@dataclass(frozen=True)
class MobileNetV2Macs(BackboneMacs):
    """What mmdet's `MobileNetV2` and `CRMobileNetV2` cost, last conv included.

    Args:
        shape: As in `BackboneMacs`.
        widen_factor: Of all channels.
    """

    widen_factor: float = 1.0
    num_stages = 5

    # inverted residuals: expansion, channels and the stride of their input
    # (stages 0 to 6; those of the middle are searched)
    LAYERS = (
        (1, 16, 2),
        (6, 24, 2),
        (6, 32, 4),
        (6, 64, 8),
        (6, 96, 16),
        (6, 160, 16),
        (6, 320, 32),
    )

    def total(self, stage_blocks: Sequence[int]) -> int:
        """Returns the cost for the five searched numbers or the paper's ten."""
        return super().total(mobilenetv2_stage_blocks(stage_blocks))

    def _stage(self, stage: int, blocks: int) -> int:
        return self._layer(stage + 1, blocks)

    def _others(self) -> int:
        stem = _conv(reduced(self.shape, 2), 3, self._channels(32), 3)
        last = _conv(
            reduced(self.shape, 32),
            self._channels(320),
            int(1280 * max(self.widen_factor, 1)),
        )
        return stem + self._layer(0, 1) + self._layer(6, 1) + last

    def _layer(self, layer: int, blocks: int) -> int:
        expansion, channels, stride = self.LAYERS[layer]
        outputs = self._channels(channels)
        inputs = self._channels(self.LAYERS[layer - 1][1] if layer else 32)
        end = self.LAYERS[layer + 1][2] if layer < 6 else 32
        before, size = reduced(self.shape, stride), reduced(self.shape, end)

        def block(before: Size, inputs: int) -> int:
            middle = inputs * expansion
            expand = _conv(before, inputs, middle) if expansion > 1 else 0
            depthwise = _conv(size, middle, middle, 3, middle)
            return expand + depthwise + _conv(size, middle, outputs)

        return block(before, inputs) + (blocks - 1) * block(size, outputs)

    def _channels(self, channels: int) -> int:
        """Widened to the nearest multiple of 8 that keeps 90%, as mmdet does."""
        wished = channels * self.widen_factor
        rounded = max(8, int(wished + 4) // 8 * 8)
        return rounded if rounded >= 0.9 * wished else rounded + 8


def reduced(shape: Size, stride: int) -> Size:
    """Returns the size that strided, padded 3x3 and 7x7 convs leave: rounded up."""
    return -(-shape[0] // stride), -(-shape[1] // stride)


def _conv(
    size: Size, inputs: int, outputs: int, kernel: int = 1, groups: int = 1
) -> int:
    """Returns the cost of a square convolution; `size` is that of its output."""
    return size[0] * size[1] * outputs * (inputs // groups) * kernel * kernel
