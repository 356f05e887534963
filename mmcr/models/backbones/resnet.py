"""ResNet with its computation reallocated, or searchable (CR-NAS, Sec. 3)."""

import copy
from collections.abc import Iterator, Sequence
from itertools import accumulate
from operator import mul

from mmdet.models.backbones.resnet import ResNet, ResNetV1d
from torch import Tensor, nn

from mmcr.checks import check_integer
from mmcr.errors import UserError
from mmcr.models.reallocated_backbone import ReallocatedBackbone, checked_blocks
from mmcr.models.searchable import ForwardStep
from mmcr.registry import MODELS
from mmcr.space import RESNET_STAGES


class ResNetStages(ReallocatedBackbone):
    """Mixin: the stages of mmdet's `ResNet` and of what inherits from it.

    Forward takes images, an ``N x in_channels x H x W`` tensor, and returns a tuple
    with one ``N x out_channels[i] x H/s x W/s`` tensor per output stage, stride s =
    ``out_strides[i]``: 4, 8, 16, 32. Where a stage's dilation is one int it has
    mmdet's meaning (all blocks; the first 3x3 of a basic block); one int per block
    has the method's: the middle 3x3 of a bottleneck, the second of a basic block.
    """

    stem_stride = 4  # with the pooling

    @property
    def stage_channels(self) -> Sequence[int]:
        """Channels of each stage's result."""
        return [
            self.base_channels * 2**i * self.block.expansion
            for i in range(self.num_stages)
        ]

    def make_res_layer(self, **kwargs) -> nn.Module:
        """One stage, or the choice of it; mmdet's constructor calls this."""
        make = super().make_res_layer

        def build(blocks: int) -> nn.Module:
            return make(**{**copy.deepcopy(kwargs), 'num_blocks': blocks})

        return self._build_stage(len(self.res_layers) + 1, kwargs['num_blocks'], build)

    def _mmdets_dilations(self) -> tuple[int, ...]:
        """Leaves to mmdet the stages that dilate as a whole; returns all for mmdet."""
        given = self._dilations
        self._dilations = {i: 1 if isinstance(d, int) else d for i, d in given.items()}
        return tuple(d if isinstance(d, int) else 1 for d in given.values())

    def _dilating(self, block: nn.Module) -> tuple[nn.Module, str, str | None]:
        return block, 'conv2', block.norm2_name

    def _stem_step(self) -> ForwardStep:
        # RegNet's is never deep, whatever deep_stem says, and does not pool
        is_deep = hasattr(self, 'stem')
        modules = (self.stem,) if is_deep else (self.conv1, self.norm1)
        stride = self.stem_stride
        return ForwardStep(self._forward_stem, modules, (), self.stem_channels, stride)

    def _forward_stem(self, x: Tensor) -> Tensor:
        is_deep = hasattr(self, 'stem')
        x = self.stem(x) if is_deep else self.relu(self.norm1(self.conv1(x)))
        return self.maxpool(x) if hasattr(self, 'maxpool') else x

    def _stages(self) -> Iterator[tuple[nn.Module, int, int]]:
        layers = map(self.get_submodule, self.res_layers)
        _, *strides = accumulate(self.strides, mul, initial=self.stem_stride)
        return zip(layers, self.stage_channels, strides)


@MODELS.register_module()
class CRResNet(ResNetStages, ResNet):
    """mmdet's `ResNet`, reallocated or searchable; options in `ReallocatedBackbone`.

    `depth` is 18 or 34 (basic blocks), 50, 101 or 152 (bottlenecks) and decides the
    default of `stage_blocks`.
    """

    def __init__(
        self,
        depth: int,
        stage_blocks: Sequence[int] | None = None,
        dilations: Sequence[int | Sequence[int]] | None = None,
        **options,
    ) -> None:
        if depth not in self.arch_settings:
            raise UserError(
                f'depth must be one of {sorted(self.arch_settings)}, but got {depth!r}.'
            )
        check_integer('base_channels', options.get('base_channels', 64))
        num_stages = options.get('num_stages', 4)
        block, baseline = self.arch_settings[depth]
        stage_blocks = checked_blocks(stage_blocks, baseline[:num_stages])
        paper = RESNET_STAGES[:num_stages]
        mmdets = self._reallocate(
            dict(depth=depth), stage_blocks, dilations, paper, **options
        )
        # mmdet's constructor looks its variant up in this table
        self.arch_settings = {depth: (block, stage_blocks)}
        super().__init__(depth=depth, dilations=self._mmdets_dilations(), **mmdets)
        self._complete()


@MODELS.register_module()
class CRResNetV1d(CRResNet, ResNetV1d):
    """mmdet's `ResNetV1d` (ResNet-D), reallocated or searchable, as `CRResNet`."""
