"""ResNet with its computation reallocated, or searchable (CR-NAS, Sec. 3)."""

import copy
from collections.abc import Mapping, Sequence

from mmdet.models.backbones.resnet import ResNet
from torch import Tensor, nn

from mmcr.errors import UserError
from mmcr.models.arguments import (
    check_supernet,
    checked_blocks,
    checked_dilations,
    stage_space,
)
from mmcr.models.layer_choice import choice_of_stage, dilate, open_dilation_choice
from mmcr.models.searchable import SearchableBackbone, Step, stage_steps
from mmcr.registry import MODELS
from mmcr.space import RESNET_STAGES, blocks_cost, operation_space


@MODELS.register_module()
class CRResNet(SearchableBackbone, ResNet):
    """mmdet's `ResNet` with any number of blocks, any dilations, or choices.

    With `depth` alone it is mmdet's network: same keys, same outputs. The
    other arguments of mmdet's `ResNet` keep their meaning in every mode.

    Forward takes images, an ``N x in_channels x H x W`` tensor, and returns a
    tuple with one ``N x out_channels[i] x H/s x W/s`` tensor per output stage,
    stride s = 4, 8, 16, 32.

    Args:
        depth: 18 or 34 (basic blocks), 50, 101 or 152 (bottlenecks); decides
            the kind of block and the default of `stage_blocks`.
        stage_blocks: tau, the number of blocks of each stage (Sec. 3.2).
        dilations: Per stage either one int, mmdet's meaning (all blocks; the
            first 3x3 of a basic block), or one int per block, the method's
            meaning: dilation of the middle 3x3 of a bottleneck, of the second
            3x3 of a basic block (Sec. 3.3).
        supernet: ``None`` for a fixed network; ``'stage'`` holds for every
            stage one branch per choice of its number of blocks, each with its
            own weights and norms; ``'operation'`` holds for every block one
            3x3 conv and norm per dilation.
        stage_choices: For the stage supernet, the numbers of blocks to choose
            from, as ``dict(stage1=(1, 2, 3), ...)``. A stage that is left out
            keeps the paper's choices T1..T4.
        share: What the choices of a stage share in the stage supernet: with
            ``'branch'`` nothing (the paper), with ``'prefix'`` their first blocks:
            k blocks are the first k of one chain, which is as long as the
            largest choice.
        dilation_choices: For the operation supernet.
        share_dilation_weights: Whether the 3x3 convs of a block share one
            weight; the norms stay separate.
        with_cp: Whether blocks keep their inputs alone for the backward pass and
            compute the rest again. Unlike mmdet's, also under DDP with
            ``find_unused_parameters``, and with norms that count each batch once.

    Raises:
        UserError: An argument breaks its rule; the message says which.
    """

    def __init__(
        self,
        depth: int,
        stage_blocks: Sequence[int] | None = None,
        dilations: Sequence[int | Sequence[int]] | None = None,
        supernet: str | None = None,
        stage_choices: Mapping[str, Sequence[int]] | None = None,
        share: str = 'branch',
        dilation_choices: Sequence[int] = (1, 2, 3),
        share_dilation_weights: bool = False,
        num_stages: int = 4,
        **kwargs,
    ) -> None:
        if depth not in self.arch_settings:
            raise UserError(
                f'depth must be one of {sorted(self.arch_settings)}, but got {depth!r}.'
            )
        block, default_blocks = self.arch_settings[depth]
        stage_blocks = checked_blocks(
            default_blocks[:num_stages] if stage_blocks is None else stage_blocks,
            num_stages,
        )
        if dilations is None:
            dilations = (1,) * num_stages
        dilations = checked_dilations(dilations, stage_blocks)
        check_supernet(supernet, dilations, share)

        self.supernet = supernet
        self.share = share
        self.dilation_choices = dilation_choices
        self.share_dilation_weights = share_dilation_weights
        self.space = None
        if supernet == 'stage':
            paper = RESNET_STAGES[:num_stages]
            self.space = stage_space(stage_choices, paper, blocks_cost)
        elif supernet == 'operation':
            self.space = operation_space(stage_blocks, self.dilation_choices)
        self._remember(depth=depth, stage_blocks=stage_blocks, **kwargs)
        if num_stages != 4:
            self._fixed_cfg['num_stages'] = num_stages
        if dilations != (1,) * num_stages:
            self._fixed_cfg['dilations'] = dilations
        self._block_dilations = dilations

        # mmdet's constructor looks its variant up in this table
        self.arch_settings = {depth: (block, stage_blocks)}
        super().__init__(
            depth=depth,
            num_stages=num_stages,
            dilations=tuple(d if isinstance(d, int) else 1 for d in dilations),
            **kwargs,
        )
        self._complete()

    @property
    def out_channels(self) -> tuple[int, ...]:
        """Channels of each output: what a neck takes as ``in_channels``."""
        return tuple(
            self.base_channels * 2**i * self.block.expansion
            for i in sorted(self.out_indices)
        )

    def steps(self) -> list[Step]:
        stem = [self.stem] if self.deep_stem else [self.conv1, self.norm1]
        steps = [Step(self._forward_stem, tuple(stem), (), False)]
        for i, layer_name in enumerate(self.res_layers):
            steps += stage_steps(getattr(self, layer_name), i in self.out_indices)
        return steps

    def make_res_layer(self, **kwargs) -> nn.Module:
        """One stage, or the choice of it; mmdet's constructor calls this."""
        stage = len(self.res_layers)
        if self.supernet == 'stage':
            make = super().make_res_layer

            def build(blocks: int) -> nn.Module:
                return make(**{**copy.deepcopy(kwargs), 'num_blocks': blocks})

            return choice_of_stage(self.space.choices[stage], build, self.share)

        layer = super().make_res_layer(**kwargs)
        for i, block in enumerate(layer):
            if self.supernet == 'operation':
                open_dilation_choice(
                    block,
                    'conv2',
                    block.norm2_name,
                    f'stage{stage + 1}.{i}',
                    self.dilation_choices,
                    self.share_dilation_weights,
                )
            elif not isinstance(self._block_dilations[stage], int):
                dilate(block.conv2, self._block_dilations[stage][i])
        return layer

    def _forward_stem(self, x: Tensor) -> Tensor:
        x = self.stem(x) if self.deep_stem else self.relu(self.norm1(self.conv1(x)))
        return self.maxpool(x)
