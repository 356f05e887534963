"""ResNet with its computation reallocated, or searchable (CR-NAS, Sec. 3)."""

import copy
from collections.abc import Mapping, Sequence

from mmdet.models.backbones.resnet import ResNet
from mmdet.models.layers import ResLayer
from torch import Tensor, nn

from mmcr.errors import UserError
from mmcr.models.layer_choice import LayerChoice
from mmcr.models.searchable import SearchableBackbone, Step
from mmcr.registry import MODELS
from mmcr.space import (
    RESNET_STAGES,
    Arch,
    Choice,
    SearchSpace,
    blocks_cost,
    dilations_of,
    operation_space,
    stage_blocks_of,
)

SUPERNETS = ('stage', 'operation')


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
        dilation_choices: For the operation supernet.
        share_dilation_weights: Whether the 3x3 convs of a block share one
            weight; the norms stay separate.

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
        stage_blocks = _checked_blocks(
            default_blocks[:num_stages] if stage_blocks is None else stage_blocks,
            num_stages,
        )
        dilations = _checked_dilations(dilations or (1,) * num_stages, stage_blocks)
        per_block = any(not isinstance(d, int) for d in dilations)
        if supernet is not None and supernet not in SUPERNETS:
            raise UserError(
                f'supernet must be None or one of {SUPERNETS}, but got {supernet!r}.'
            )
        if supernet is not None and per_block:
            raise UserError(
                f'dilations per block describe a fixed network, but this is a '
                f'{supernet} supernet: {dilations}. Leave dilations out.'
            )
        if supernet == 'operation' and any(d != 1 for d in dilations):
            raise UserError(
                f'The operation supernet chooses the dilation of every block, so '
                f'dilations must stay at 1, but got {dilations}.'
            )

        self.supernet = supernet
        self.dilation_choices = tuple(dilation_choices)
        self.share_dilation_weights = share_dilation_weights
        self.space = None
        if supernet == 'stage':
            self.space = _stage_space(stage_choices or {}, num_stages)
        elif supernet == 'operation':
            self.space = operation_space(stage_blocks, self.dilation_choices)
        self._fixed_cfg = dict(depth=depth, stage_blocks=stage_blocks, **kwargs)
        # where a supernet's weights came from says nothing of a fixed network's
        self._fixed_cfg.pop('init_cfg', None)
        self._fixed_cfg.pop('pretrained', None)
        if num_stages != 4:
            self._fixed_cfg['num_stages'] = num_stages
        if dilations != (1,) * num_stages:
            self._fixed_cfg['dilations'] = dilations
        self._block_dilations = dilations

        # mmdet's constructor looks its variant up in this table
        self.arch_settings = {depth: (block, stage_blocks)}
        super().__init__(
            depth,
            num_stages=num_stages,
            dilations=tuple(d if isinstance(d, int) else 1 for d in dilations),
            **kwargs,
        )
        self._collect_choices()

    @property
    def out_channels(self) -> tuple[int, ...]:
        """Channels of each output: what a neck takes as ``in_channels``."""
        return tuple(
            self.base_channels * 2**i * self.block.expansion for i in self.out_indices
        )

    def arch_cfg(self, arch: Arch) -> dict:
        self._require_space().validate(arch)
        # copied: mmdet's blocks pop entries of some of these dicts
        cfg = dict(type='mmcr.CRResNet', **copy.deepcopy(self._fixed_cfg))
        if self.supernet == 'stage':
            cfg['stage_blocks'] = stage_blocks_of(arch)
        else:
            cfg['dilations'] = dilations_of(arch)
        return cfg

    def steps(self) -> list[Step]:
        stem = [self.stem] if self.deep_stem else [self.conv1, self.norm1]
        steps = [Step(self._forward_stem, tuple(stem), (), False)]
        for i, layer_name in enumerate(self.res_layers):
            layer = getattr(self, layer_name)
            is_output = i in self.out_indices
            if self.supernet != 'operation':
                choices = (layer.choice,) if isinstance(layer, LayerChoice) else ()
                steps.append(Step(layer, (layer,), choices, is_output))
                continue
            for j, block in enumerate(layer):
                last = is_output and j == len(layer) - 1
                steps.append(Step(block, (block,), (_block_name(i, j),), last))
        return steps

    def make_res_layer(self, **kwargs) -> nn.Module:
        """One stage, or the choice of it; mmdet's constructor calls this."""
        stage = len(self.res_layers)
        if self.supernet == 'stage':
            choice = self.space.choices[stage]
            options = {}
            for num_blocks in choice.values:
                branch = copy.deepcopy(kwargs)
                branch['num_blocks'] = num_blocks
                options[num_blocks] = ResLayer(**branch)
            return LayerChoice(choice.name, options)

        layer = ResLayer(**kwargs)
        for i, block in enumerate(layer):
            if self.supernet == 'operation':
                self._open_operation_choice(block, _block_name(stage, i))
            elif not isinstance(self._block_dilations[stage], int):
                _dilate(block.conv2, self._block_dilations[stage][i])
        return layer

    def _open_operation_choice(self, block: nn.Module, name: str) -> None:
        """Turns the block's 3x3 conv of interest and its norm into a choice."""
        convs, norms = {}, {}
        for dilation in self.dilation_choices:
            convs[dilation] = _dilate(copy.deepcopy(block.conv2), dilation)
            norms[dilation] = copy.deepcopy(block.norm2)
            if self.share_dilation_weights:
                convs[dilation].weight = block.conv2.weight
        block.conv2 = LayerChoice(name, convs)
        setattr(block, block.norm2_name, LayerChoice(name, norms))

    def _forward_stem(self, x: Tensor) -> Tensor:
        x = self.stem(x) if self.deep_stem else self.relu(self.norm1(self.conv1(x)))
        return self.maxpool(x)


def _block_name(stage: int, block: int) -> str:
    return f'stage{stage + 1}.{block}'


def _dilate(conv: nn.Module, dilation: int) -> nn.Module:
    """Dilates a 3x3 conv in place, its output size kept; returns it."""
    conv.dilation = conv.padding = (dilation, dilation)
    return conv


def _stage_space(
    stage_choices: Mapping[str, Sequence[int]], num_stages: int
) -> SearchSpace:
    defaults = {choice.name: choice.values for choice in RESNET_STAGES[:num_stages]}
    if (
        not isinstance(stage_choices, Mapping)
        or not stage_choices.keys() <= defaults.keys()
    ):
        raise UserError(
            f'stage_choices must map some of {list(defaults)} to numbers '
            f'of blocks, but got {stage_choices!r}.'
        )
    chosen = {**defaults, **stage_choices}
    for name, values in chosen.items():
        if not _is_list(values) or not all(_is_count(n) for n in values):
            raise UserError(
                f'stage_choices of {name} must be numbers of blocks, each '
                f'at least 1, but got {values!r}.'
            )
    return SearchSpace(
        [Choice(name, values) for name, values in chosen.items()], cost=blocks_cost
    )


def _checked_blocks(stage_blocks: Sequence[int], num_stages: int) -> tuple[int, ...]:
    if (
        not _is_list(stage_blocks)
        or len(stage_blocks) != num_stages
        or not all(_is_count(n) for n in stage_blocks)
    ):
        raise UserError(
            f'stage_blocks must hold {num_stages} numbers of blocks, each '
            f'at least 1, but got {stage_blocks!r}.'
        )
    return tuple(stage_blocks)


def _checked_dilations(
    dilations: Sequence[int | Sequence[int]], stage_blocks: tuple[int, ...]
) -> tuple:
    if not _is_list(dilations) or len(dilations) != len(stage_blocks):
        raise UserError(
            f'dilations must have one entry per stage, {len(stage_blocks)} in all, '
            f'but got {dilations!r}.'
        )
    for stage, (entry, blocks) in enumerate(zip(dilations, stage_blocks), start=1):
        values = entry if _is_list(entry) else [entry] * blocks
        if len(values) != blocks or not all(_is_count(d) for d in values):
            raise UserError(
                f'dilations of stage {stage} must be one int or one int per block '
                f'({blocks}), each at least 1, but got {entry!r}.'
            )
    return tuple(tuple(d) if _is_list(d) else d for d in dilations)


def _is_list(values: object) -> bool:
    return isinstance(values, Sequence) and not isinstance(values, str)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and value >= 1
