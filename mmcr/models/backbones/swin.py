"""Swin Transformer with its computation reallocated, or searchable (CR-NAS, Sec. 3)."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import accumulate
from operator import mul

from mmdet.models.backbones.swin import SwinBlock, SwinTransformer
from mmengine.config import ConfigDict
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmcr.errors import UserError
from mmcr.models.backbones.stochastic_depth import (
    DroppingPaths,
    NumbersOnCPU,
    first,
)
from mmcr.models.reallocated_backbone import checked_blocks
from mmcr.models.searchable import ForwardStep
from mmcr.models.weights.checkpoint import CheckpointError
from mmcr.registry import MODELS, is_pretrained
from mmcr.space import SWIN_STAGES, Choice

DILATING = ('dilations', 'dilation_choices', 'share_dilation_weights')


class MapBlock(SwinBlock):
    """mmdet's block, of a feature map: ``N x C x H x W`` in and out."""

    def forward(self, x: Tensor) -> Tensor:
        size = x.shape[2:]
        return _as_map(super().forward(_as_tokens(x), size), size)

    def extra_repr(self) -> str:
        # plain and shifted windows, which take different times, read alike otherwise
        return f'shift_size={self.attn.shift_size}'


@MODELS.register_module()
class CRSwin(DroppingPaths, SwinTransformer):
    """mmdet's `SwinTransformer`, reallocated or searchable.

    Options are those of `ReallocatedBackbone` but for dilations, since there is no 3x3
    convolution: its supernets are of stages. The first block of a stage has plain
    windows, the second shifted ones, and so on, in every path; the stage supernet
    chooses among even numbers of blocks and the baseline's own. A half-width supernet
    has half the `embed_dims` and as many heads.

    Patch merging comes before the blocks of the stage that it leads to. Outputs are
    normed, which the next stage does not see.

    Forward takes ``N x in_channels x H x W`` images and returns a tuple with one
    ``N x out_channels[i] x H/s x W/s`` tensor per output stage, s = ``out_strides[i]``.

    Args:
        depths: Of the four stages, as in mmdet; decide the default of `stage_blocks`.
        drop_path_rate: As in `DroppingPaths`.
    """

    modes = ('stage',)

    def __init__(
        self,
        stage_blocks: Sequence[int] | None = None,
        depths: Sequence[int] = (2, 2, 6, 2),
        drop_path_rate: float = 0.1,
        **options,
    ) -> None:
        _check_options(options)
        depths = checked_blocks(depths, SWIN_STAGES, 'depths')
        stage_blocks = checked_blocks(stage_blocks, depths)
        choices = [
            Choice(choice.name, sorted({*choice.values, blocks}))
            for choice, blocks in zip(SWIN_STAGES, depths)
        ]
        network = dict(depths=depths, drop_path_rate=drop_path_rate)
        mmdets = self._reallocate(network, stage_blocks, None, choices, **options)
        longest = stage_blocks
        if self.supernet:
            longest = [max(choice.values) for choice in self.space.choices]
        self.drop_path_rate = drop_path_rate
        with NumbersOnCPU():
            super().__init__(depths=longest, drop_path_rate=drop_path_rate, **mmdets)
        self.embed_dims = self.num_features[0]
        self._strides = tuple(accumulate(options.get('strides', (4, 2, 2, 2)), mul))
        for i, stage in enumerate(self.stages):
            _check_heads(i + 1, stage.blocks[0].attn.w_msa)
            for block in stage.blocks:
                block.__class__ = MapBlock  # mmdet's stage builds its own kind alone
            build = partial(first, stage.blocks)
            stage.blocks = self._build_stage(i + 1, stage_blocks[i], build)
        self._complete()
        self._spread_drop_path()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        outs = []
        for step in self.steps():
            x = step.run(x)
            if step.is_output:
                outs.append(step.output(x))
        return tuple(outs)

    def _before(self, stage: int) -> tuple[Callable, tuple[nn.Module, ...]] | None:
        if stage == 0:
            return None
        merging = self.stages[stage - 1].downsample
        return partial(_merge, merging), (merging,)

    def _output(self, stage: int) -> tuple[Callable, tuple[nn.Module, ...]]:
        norm = getattr(self, f'norm{stage}')
        return partial(_normed, norm), (norm,)

    def _stem_step(self) -> ForwardStep:
        modules = self.patch_embed, self.drop_after_pos
        size = self.embed_dims, self._strides[0]
        return ForwardStep(self._embed, modules, (), *size)

    def _embed(self, x: Tensor) -> Tensor:
        tokens, size = self.patch_embed(x)
        return _as_map(self.drop_after_pos(tokens), size)

    def _stages(self) -> Iterator[tuple[nn.Module, int, int]]:
        blocks = (stage.blocks for stage in self.stages)
        return zip(blocks, self.num_features, self._strides)

    def init_weights(self) -> None:
        """As mmdet's; initializers that are no ``Pretrained`` as mmengine runs them."""
        cfg = self.init_cfg
        if cfg is None:
            return super().init_weights()
        if not is_pretrained(cfg):
            return BaseModule.init_weights(self)
        self.init_cfg = ConfigDict(cfg)  # mmdet takes a config's
        try:
            return super().init_weights()
        except IndexError:  # of the first of those names
            raise CheckpointError(
                f"Weights for a Swin Transformer must be named as mmdet's are "
                f'(backbone.stages...), but none of {cfg.get("checkpoint")} is. Those '
                f'of its authors need convert_weights=True of the backbone.'
            ) from None


def _check_options(options: Mapping) -> None:
    given = [name for name in DILATING if name in options]
    if options.get('supernet') == 'operation':
        given.append("supernet='operation'")
    if given:
        raise UserError(
            f'A Swin Transformer has no 3x3 convolution whose dilation could be '
            f'chosen, but got {", ".join(given)}. Leave it out: its supernet is '
            f"supernet='stage'."
        )
    if options.get('use_abs_pos_embed'):
        raise UserError(
            'Positions are learned for images of one size, which detectors do not '
            'have, but got use_abs_pos_embed=True. Leave it out.'
        )


def _check_heads(stage: int, attention: nn.Module) -> None:
    if attention.embed_dims % attention.num_heads:
        raise UserError(
            f'The channels of a stage must be a multiple of its num_heads, but stage '
            f'{stage} has {attention.embed_dims} channels (by embed_dims) for '
            f'{attention.num_heads} heads.'
        )


def _as_map(tokens: Tensor, size: Sequence[int]) -> Tensor:
    """``N x H W x C`` as ``N x C x H x W``; both ways nothing is copied."""
    return tokens.transpose(1, 2).unflatten(2, tuple(size))


def _as_tokens(x: Tensor) -> Tensor:
    return x.flatten(2).transpose(1, 2)


def _merge(merging: nn.Module, x: Tensor) -> Tensor:
    return _as_map(*merging(_as_tokens(x), x.shape[2:]))


def _normed(norm: nn.Module, x: Tensor) -> Tensor:
    return _as_map(norm(_as_tokens(x)), x.shape[2:]).contiguous()
