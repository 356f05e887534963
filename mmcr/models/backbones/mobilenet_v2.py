"""MobileNetV2 with its computation reallocated, or searchable (CR-NAS, Sec. 3)."""

from collections.abc import Mapping, Sequence

from mmdet.models.backbones.mobilenet_v2 import MobileNetV2
from torch import nn

from mmcr.checks import is_list
from mmcr.models.arguments import (
    check_supernet,
    checked_dilations,
    stage_space,
)
from mmcr.models.layer_choice import choice_of_stage, dilate, open_dilation_choice
from mmcr.models.searchable import SearchableBackbone, Step, stage_steps
from mmcr.registry import MODELS
from mmcr.space import (
    MOBILENETV2_STAGES,
    mobilenetv2_cost,
    mobilenetv2_operation_space,
    mobilenetv2_stage_blocks,
)

SEARCHED = range(1, 6)  # of mmdet's layers, counted from 0


@MODELS.register_module()
class CRMobileNetV2(SearchableBackbone, MobileNetV2):
    """mmdet's `MobileNetV2` with any number of blocks, any dilations, or choices.

    Without arguments it is mmdet's network: same keys, same outputs. The
    arguments of mmdet's `MobileNetV2` keep their meaning in every mode; a
    half-width supernet has ``widen_factor=0.5`` and costs about a third.

    Five stages are searched, those of 24, 32, 64, 96 and 160 channels: mmdet's
    ``layer2`` to ``layer6``, here stage 1 to 5. The inverted residuals before
    and after them, of 16 and 320 channels, stay single, but their depthwise 3x3
    dilates like all others: they are stage 0 and 6 where dilations are named.

    Forward takes images, an ``N x 3 x H x W`` tensor, and returns a tuple with
    one ``N x out_channels[i] x H/s x W/s`` tensor per entry of `out_indices`.
    mmdet counts layers from 0 (stage 0) to 7 (the conv to 1280 channels); their
    strides s are 2, 4, 8, 16, 16, 32, 32, 32.

    Args:
        stage_blocks: The numbers of blocks [m1, ..., m5] of the searched stages,
            or the paper's code [1, 1, m1, ..., m5, 1, 1, 1] (Sec. 3.2).
        dilations: One entry per stage, either for the searched five or for all
            seven; each is one int or one int per block, the dilation of the
            depthwise 3x3 (Sec. 3.3).
        supernet: ``None`` for a fixed network; ``'stage'`` holds for every
            searched stage one branch per choice of its number of blocks, each
            with its own weights and norms; ``'operation'`` holds for every block
            one depthwise conv and norm per dilation.
        stage_choices: For the stage supernet, the numbers of blocks to choose
            from, as ``dict(stage1=(1, 2, 3), ...)``. A stage that is left out
            keeps the paper's choices M1..M5.
        share: What the choices of a stage share in the stage supernet: with
            ``'branch'`` nothing (the paper), with ``'prefix'`` their first blocks:
            k blocks are the first k of one chain, which is as long as the
            largest choice.
        dilation_choices: For the operation supernet.
        share_dilation_weights: Whether the depthwise convs of a block share one
            weight; the norms stay separate.
        with_cp: Whether blocks keep their inputs alone for the backward pass and
            compute the rest again. Unlike mmdet's, also under DDP with
            ``find_unused_parameters``, and with norms that count each batch once.

    Raises:
        UserError: An argument breaks its rule; the message says which.
    """

    def __init__(
        self,
        stage_blocks: Sequence[int] | None = None,
        dilations: Sequence[int | Sequence[int]] | None = None,
        supernet: str | None = None,
        stage_choices: Mapping[str, Sequence[int]] | None = None,
        share: str = 'branch',
        dilation_choices: Sequence[int] = (1, 2, 3),
        share_dilation_weights: bool = False,
        **kwargs,
    ) -> None:
        mmdets = self.arch_settings
        if stage_blocks is None:
            stage_blocks = [mmdets[i][2] for i in SEARCHED]
        stage_blocks = mobilenetv2_stage_blocks(stage_blocks)
        dilations = _checked_dilations(dilations, stage_blocks)
        check_supernet(supernet, dilations, share)

        self.supernet = supernet
        self.share = share
        self.dilation_choices = dilation_choices
        self.share_dilation_weights = share_dilation_weights
        self.space = None
        if supernet == 'stage':
            self.space = stage_space(
                stage_choices, MOBILENETV2_STAGES, mobilenetv2_cost
            )
        elif supernet == 'operation':
            self.space = mobilenetv2_operation_space(
                stage_blocks, self.dilation_choices
            )
        self._remember(stage_blocks=stage_blocks, **kwargs)
        if dilations != (1,) * 7:
            self._fixed_cfg['dilations'] = dilations
        self._block_dilations = dilations
        self.stage_blocks = stage_blocks
        self._stage_channels = []

        # mmdet's constructor builds what this table says
        self.arch_settings = [
            [expand, channels, blocks, stride]
            for (expand, channels, _, stride), blocks in zip(
                mmdets, (1, *stage_blocks, 1)
            )
        ]
        super().__init__(**kwargs)
        self._complete()

    @property
    def out_channels(self) -> tuple[int, ...]:
        """Channels of each output: what a neck takes as ``in_channels``."""
        channels = [*self._stage_channels, self.out_channel]
        return tuple(channels[i] for i in sorted(self.out_indices))

    def steps(self) -> list[Step]:
        steps = [Step(self.conv1, (self.conv1,), (), False)]
        for i, layer_name in enumerate(self.layers):
            steps += stage_steps(getattr(self, layer_name), i in self.out_indices)
        return steps

    def make_layer(
        self, out_channels: int, num_blocks: int, stride: int, expand_ratio: int
    ) -> nn.Module:
        """One stage, or the choice of it; mmdet's constructor calls this."""
        stage = len(self.layers)
        self._stage_channels.append(out_channels)

        make, in_channels = super().make_layer, self.in_channels

        def build(blocks: int) -> nn.Module:
            self.in_channels = in_channels  # mmdet moves it to the stage's end
            layer = make(out_channels, blocks, stride, expand_ratio)
            return self._dilated(layer, stage)

        if self.supernet == 'stage' and stage in SEARCHED:
            return choice_of_stage(self.space.choices[stage - 1], build, self.share)
        return build(num_blocks)

    def _dilated(self, layer: nn.Module, stage: int) -> nn.Module:
        """Dilates the blocks of a stage, or opens the choice of it; returns it."""
        rates = self._block_dilations[stage]
        for i, block in enumerate(layer):
            module = block.depthwise_conv
            if self.supernet == 'operation':
                open_dilation_choice(
                    module,
                    'conv',
                    module.norm_name,
                    f'stage{stage}.{i}',
                    self.dilation_choices,
                    self.share_dilation_weights,
                )
            elif rates != 1:
                dilate(module.conv, rates if isinstance(rates, int) else rates[i])
        return layer


def _checked_dilations(
    dilations: Sequence[int | Sequence[int]] | None, stage_blocks: tuple[int, ...]
) -> tuple[int | tuple[int, ...], ...]:
    """Returns one entry for each of the seven stages."""
    if dilations is None:
        return (1,) * 7
    if is_list(dilations) and len(dilations) == len(stage_blocks):
        return (1, *checked_dilations(dilations, stage_blocks), 1)
    return checked_dilations(dilations, (1, *stage_blocks, 1), first=0)
