"""mmpretrain's ConvNeXt reallocated, or searchable (CR-NAS, Sec. 3)."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

from mmengine.model import BaseModule
from torch import nn

from mmcr.checks import check_number, is_list
from mmcr.errors import UserError
from mmcr.models.backbones.stochastic_depth import (
    DroppingPaths,
    NumbersOnCPU,
    first,
)
from mmcr.models.reallocated_backbone import checked_blocks
from mmcr.models.searchable import ForwardStep
from mmcr.registry import MODELS
from mmcr.space import blocks_around

try:
    from mmpretrain.models.backbones.convnext import ConvNeXt
except ImportError as error:
    ConvNeXt, MISSING = BaseModule, str(error)
else:
    MISSING = ''
INSTALL = (
    'Install it: pip install --no-deps onedl-mmpretrain, and what it imports: '
    'model-index, ordered-set, einops, mat4py and a torchvision that fits the torch.'
)


@MODELS.register_module()
class CRConvNeXt(DroppingPaths, ConvNeXt):
    """mmpretrain's `ConvNeXt`, reallocated or searchable; needs mmpretrain.

    Options are those of `ReallocatedBackbone`. The depthwise 7x7 convolution of a block
    dilates; the norm behind it is one for all dilations. By default the stage supernet
    chooses around the numbers of blocks of `arch`. Blocks cost differently from stage
    to stage by their depthwise part.

    Forward takes ``N x in_channels x H x W`` images and returns a tuple with one
    ``N x out_channels[i] x H/s x W/s`` tensor per output stage, s = ``out_strides[i]``.
    Sizes are rounded down: a detector pads images to multiples of 32.

    Args:
        arch: As in mmpretrain: a name, or ``dict(depths=..., channels=...)``; decides
            the default of `stage_blocks`.
        drop_path_rate: As in `DroppingPaths`.
        stem_patch_size: As in mmpretrain; the stride of stage 1.
        gap_before_final_norm: False: a detector takes maps.
        widen_factor: Of all channels of `arch`.
    """

    default_budget = 'macs'
    original = 'mmpretrain.ConvNeXt'

    def __init__(
        self,
        arch: str | Mapping[str, Sequence[int]] = 'tiny',
        stage_blocks: Sequence[int] | None = None,
        dilations: Sequence[int | Sequence[int]] | None = None,
        drop_path_rate: float = 0.0,
        stem_patch_size: int = 4,
        gap_before_final_norm: bool = False,
        widen_factor: float = 1.0,
        **options,
    ) -> None:
        if MISSING:
            raise UserError(
                f'CRConvNeXt needs mmpretrain, but it cannot be imported: {MISSING}. '
                f'{INSTALL}'
            )
        if gap_before_final_norm:
            raise UserError(
                'A detector takes maps, but got gap_before_final_norm=True, which '
                'averages them. Leave it out.'
            )
        depths, channels = self._baseline(arch, widen_factor)
        stage_blocks = checked_blocks(stage_blocks, depths)
        network = dict(
            arch=arch, drop_path_rate=drop_path_rate, stem_patch_size=stem_patch_size
        )
        if widen_factor != 1:
            network['widen_factor'] = widen_factor
        choices = blocks_around(depths)
        mmdets = self._reallocate(network, stage_blocks, dilations, choices, **options)
        longest = stage_blocks
        if self.supernet == 'stage':
            longest = [max(choice.values) for choice in self.space.choices]
        self.drop_path_rate, self.widen_factor = drop_path_rate, widen_factor
        with NumbersOnCPU():
            super().__init__(
                dict(depths=longest, channels=channels),
                drop_path_rate=drop_path_rate,
                stem_patch_size=stem_patch_size,
                gap_before_final_norm=False,
                **mmdets,
            )
        self._stem_stride = stem_patch_size
        for i, stage in enumerate(self.stages):
            build = partial(first, stage)
            self.stages[i] = self._build_stage(i + 1, stage_blocks[i], build)
        self._complete()
        self._spread_drop_path()

    def _baseline(
        self, arch: str | Mapping[str, Sequence[int]], widen_factor: float
    ) -> tuple[tuple[int, ...], list[int]]:
        """Blocks and channels per stage of mmpretrain's own network."""
        given = self.arch_settings.get(arch) if isinstance(arch, str) else arch
        if not isinstance(given, Mapping) or set(given) != {'depths', 'channels'}:
            raise UserError(
                f'arch must be one of {list(self.arch_settings)} or a dict of depths '
                f'and channels, but got {arch!r}.'
            )
        depths, channels = given['depths'], given['channels']
        if not (is_list(depths) and is_list(channels) and len(depths) == len(channels)):
            raise UserError(
                f'depths and channels of arch must be lists of the same length, but '
                f'got {arch!r}.'
            )
        check_number('widen_factor', widen_factor)
        widened = [int(number * widen_factor) for number in channels]
        return checked_blocks(depths, depths, 'depths'), widened

    def _dilating(self, block: nn.Module) -> tuple[nn.Module, str, None]:
        return block, 'depthwise_conv', None

    def _stem_step(self) -> ForwardStep:
        stem = self.downsample_layers[0]
        return ForwardStep(stem, (stem,), (), self.channels[0], self._stem_stride)

    def _before(self, stage: int) -> tuple[Callable, tuple[nn.Module, ...]] | None:
        layer = self.downsample_layers[stage]
        return (layer, (layer,)) if stage else None

    def _output(self, stage: int) -> tuple[Callable, tuple[nn.Module, ...]]:
        norm = getattr(self, f'norm{stage}')
        return norm, (norm,)

    def _stages(self) -> Iterator[tuple[nn.Module, int, int]]:
        for i, (stage, channels) in enumerate(zip(self.stages, self.channels)):
            yield stage, channels, self._stem_stride * 2**i
