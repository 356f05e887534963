"""MobileNetV2 with its computation reallocated, or searchable (CR-NAS, Sec. 3)."""

from collections.abc import Iterator, Sequence
from itertools import accumulate
from operator import mul

from mmdet.models.backbones.mobilenet_v2 import MobileNetV2
from torch import nn

from mmcr.checks import is_list
from mmcr.models.reallocated_backbone import ReallocatedBackbone
from mmcr.models.searchable import ForwardStep
from mmcr.registry import MODELS
from mmcr.space import MOBILENETV2_STAGES, mobilenetv2_cost, mobilenetv2_stage_blocks

STEM_STRIDE = 2


@MODELS.register_module()
class CRMobileNetV2(ReallocatedBackbone, MobileNetV2):
    """mmdet's `MobileNetV2`, reallocated or searchable.

    Options are those of `ReallocatedBackbone`. A half-width supernet has
    ``widen_factor=0.5`` and costs about a third.

    Five stages are searched, those of 24, 32, 64, 96 and 160 channels: mmdet's
    ``layer2`` to ``layer6``, here stage 1 to 5. The inverted residuals before
    and after them, of 16 and 320 channels, stay single, but their depthwise 3x3
    dilates like all others: they are stage 0 and 6 where dilations are named.

    Forward takes ``N x 3 x H x W`` images and returns one ``N x out_channels[i] x H/s x
    W/s`` tensor per entry of `out_indices`, s = ``out_strides[i]``. mmdet counts layers
    from 0 (stage 0) to 7 (the conv to 1280 channels).

    Args:
        stage_blocks: The numbers of blocks [m1, ..., m5] of the searched stages,
            or the paper's code [1, 1, m1, ..., m5, 1, 1, 1] (Sec. 3.2).
        dilations: One entry per stage, either for the searched five or for all
            seven; each is one int or one int per block.
    """

    first_stage = 0
    stage_cost = staticmethod(mobilenetv2_cost)

    def __init__(
        self,
        stage_blocks: Sequence[int] | None = None,
        dilations: Sequence[int | Sequence[int]] | None = None,
        **options,
    ) -> None:
        table = self.arch_settings
        if stage_blocks is None:
            stage_blocks = [blocks for _, _, blocks, _ in table[1:-1]]
        stage_blocks = mobilenetv2_stage_blocks(stage_blocks)
        if is_list(dilations) and len(dilations) == len(stage_blocks):
            dilations = (1, *dilations, 1)
        mmdets = self._reallocate(
            {}, stage_blocks, dilations, MOBILENETV2_STAGES, **options
        )
        self._stage_channels = []
        # mmdet's constructor builds what this table says
        self.arch_settings = [
            [expand, channels, blocks, stride]
            for (expand, channels, _, stride), blocks in zip(
                table, (1, *stage_blocks, 1)
            )
        ]
        super().__init__(**mmdets)
        self._complete()

    def make_layer(
        self, out_channels: int, num_blocks: int, stride: int, expand_ratio: int
    ) -> nn.Module:
        """One stage, or the choice of it; mmdet's constructor calls this."""
        self._stage_channels.append(out_channels)
        make, in_channels = super().make_layer, self.in_channels

        def build(blocks: int) -> nn.Module:
            self.in_channels = in_channels  # mmdet moves it to the stage's end
            return make(out_channels, blocks, stride, expand_ratio)

        return self._build_stage(len(self.layers), num_blocks, build)

    def _dilating(self, block: nn.Module) -> tuple[nn.Module, str, str | None]:
        return block.depthwise_conv, 'conv', block.depthwise_conv.norm_name

    def _stem_step(self) -> ForwardStep:
        channels = self.conv1.out_channels
        return ForwardStep(self.conv1, (self.conv1,), (), channels, STEM_STRIDE)

    def _stages(self) -> Iterator[tuple[nn.Module, int, int]]:
        layers = map(self.get_submodule, self.layers)
        strides = [*(stride for *_, stride in self.arch_settings), 1]  # conv2's
        _, *strides = accumulate(strides, mul, initial=STEM_STRIDE)
        return zip(layers, (*self._stage_channels, self.out_channel), strides)
