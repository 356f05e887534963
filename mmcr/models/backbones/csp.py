"""CSPDarknet (YOLOX) and CSPNeXt (RTMDet) reallocated, or searchable (CR-NAS, Sec. 3).

The blocks of a stage lie inside its CSP layer, which runs them on a part of the
channels and joins what they give with the rest.
"""

import copy
from collections.abc import Iterator, Sequence

from mmdet.models.backbones.csp_darknet import CSPDarknet
from mmdet.models.backbones.cspnext import CSPNeXt
from torch import nn

from mmcr.checks import check_number
from mmcr.errors import UserError
from mmcr.models.reallocated_backbone import ReallocatedBackbone, checked_blocks
from mmcr.models.searchable import ForwardStep, unchanged
from mmcr.registry import MODELS
from mmcr.space import blocks_around

STEM_STRIDE = 2


class CSPStages(ReallocatedBackbone):
    """Mixin: the stages of mmdet's `CSPDarknet` and `CSPNeXt`.

    Chosen are the blocks inside the CSP layers. Stem, downsampling, pooling pyramid and
    a CSP layer's other convolutions stay. By default the stage supernet chooses around
    the numbers of blocks that `arch` and `deepen_factor` give.

    Forward takes ``N x 3 x H x W`` images and returns one ``N x out_channels[i] x H/s x
    W/s`` tensor per entry of `out_indices`, s = ``out_strides[i]``. mmdet counts layers
    from 0 (the stem, of stride 2) to 4 (stage 4, of stride 32).

    Args:
        arch: 'P5', of four stages, or 'P6', of five.
        stage_blocks: As in `ReallocatedBackbone`; `deepen_factor` leaves them alone.
        deepen_factor: Of the numbers of blocks of `arch`, which are the default.
        arch_ovewrite: As in mmdet, in the place of what `arch` names.
        with_cp: As in `ReallocatedBackbone`, of whole CSP layers.
    """

    default_budget = 'macs'
    first_output = 1
    image_channels = 3

    def __init__(
        self,
        arch: str = 'P5',
        stage_blocks: Sequence[int] | None = None,
        dilations: Sequence[int | Sequence[int]] | None = None,
        deepen_factor: float = 1.0,
        arch_ovewrite: Sequence[Sequence] | None = None,
        with_cp: bool = False,
        **options,
    ) -> None:
        network = dict(arch=arch, deepen_factor=deepen_factor)
        if arch_ovewrite:
            network['arch_ovewrite'] = arch_ovewrite
        if with_cp:
            network['with_cp'] = True
        if arch not in self.arch_settings:
            raise UserError(
                f'arch must be one of {list(self.arch_settings)}, but got {arch!r}.'
            )
        self.widen_factor = options.get('widen_factor', 1.0)
        check_number('deepen_factor', deepen_factor)
        check_number('widen_factor', self.widen_factor)
        table = arch_ovewrite or self.arch_settings[arch]
        baseline = [max(round(blocks * deepen_factor), 1) for _, _, blocks, *_ in table]
        stage_blocks = checked_blocks(stage_blocks, baseline)
        choices = blocks_around(baseline)
        mmdets = self._reallocate(network, stage_blocks, dilations, choices, **options)
        # what mmdet's constructor builds, whose layers hold the longest chains
        longest = stage_blocks
        if self.supernet == 'stage':
            longest = [max(choice.values) for choice in self.space.choices]
        self._table = [
            (inputs, outputs, blocks, *kind)
            for blocks, (inputs, outputs, _, *kind) in zip(longest, table)
        ]
        super().__init__(arch, arch_ovewrite=self._table, **mmdets)
        for i, blocks in enumerate(stage_blocks, 1):
            self._open(i, blocks)
            self.get_submodule(f'stage{i}')[-1].with_cp = with_cp
        self._complete()

    @property
    def shortcuts(self) -> tuple[bool, ...]:
        """As in the base: not in the last stage of mmdet's networks."""
        return tuple(add_identity for *_, add_identity, _ in self._table)

    def _open(self, stage: int, blocks: int) -> None:
        """Gives a CSP layer its blocks, or the choice of them."""
        layer = self.get_submodule(f'stage{stage}')[-1]
        chain = layer.blocks
        layer.blocks = self._build_stage(
            stage, blocks, lambda blocks: copy.deepcopy(chain[:blocks])
        )

    def _dilating(self, block: nn.Module) -> tuple[nn.Module, str, str | None]:
        conv = getattr(block.conv2, 'depthwise_conv', block.conv2)
        return conv, 'conv', conv.norm_name if conv.with_norm else None

    def _stem_step(self) -> ForwardStep:
        channels = int(self._table[0][0] * self.widen_factor)
        output = unchanged if 0 in self.out_indices else None
        return ForwardStep(self.stem, (self.stem,), (), channels, STEM_STRIDE, output)

    def _stages(self) -> Iterator[tuple[nn.Module, int, int]]:
        for i, (_, outputs, *_) in enumerate(self._table, 1):
            channels = int(outputs * self.widen_factor)
            yield self.get_submodule(f'stage{i}'), channels, STEM_STRIDE * 2**i

    def _parts(self, stage: nn.Module) -> Sequence[nn.Module]:
        return list(stage)

    def chain_of(self, part: nn.Module) -> nn.Module:
        """The blocks inside a CSP layer; `part` if it is none."""
        return getattr(part, 'blocks', part)


@MODELS.register_module()
class CRCSPDarknet(CSPStages, CSPDarknet):
    """mmdet's `CSPDarknet`, reallocated or searchable; options in `CSPStages`.

    What dilates is the 3x3 convolution of a block.
    """


@MODELS.register_module()
class CRCSPNeXt(CSPStages, CSPNeXt):
    """mmdet's `CSPNeXt`, reallocated or searchable; options in `CSPStages`.

    What dilates is the depthwise 5x5 convolution of a block, its second.
    """
