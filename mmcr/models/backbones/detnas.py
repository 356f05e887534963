"""DetNAS's backbone: a ShuffleNetV2 of chosen blocks (Chen et al., NeurIPS 2019)."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

import torch
from mmcv.cnn import ConvModule, DepthwiseSeparableConvModule, is_norm
from mmengine.model import BaseModule, constant_init, normal_init, update_init_info
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from mmcr.errors import UserError
from mmcr.models.layer_choice import LayerChoice
from mmcr.models.searchable import ForwardStep, SearchableBackbone
from mmcr.models.weights.checkpoint import CheckpointError
from mmcr.registry import MODELS, WEIGHT_INITIALIZERS
from mmcr.space import (
    Arch,
    block_arch,
    blocks_of,
    detnas_size,
    detnas_space,
)
from mmcr.space.detnas import KERNELS, XCEPTION, Place, block_places, nested_blocks

STRIDES = (4, 8, 16, 32)  # of the stages
LAST = 4  # index of the conv after the four stages


class ShuffleBlock(nn.Module):
    """A block of ShuffleNetV2, of one of DetNAS's four kinds.

    With stride 1 the input, ``N x C x H x W``, is shuffled and split: one half
    passes, the other goes through the branch. With stride 2 all of it goes through
    the projection and through the branch. Both parts together are the output.

    Args:
        place: Its channels and stride.
        kind: 0, 1 or 2 for a depthwise 3x3, 5x5 or 7x7, 3 for Xception's three 3x3.
        shuffle: Of 8 channels, 1 passes 0, 4, 1, 5 and 2 passes 0, 2, 4, 6.
    """

    def __init__(
        self,
        place: Place,
        kind: int,
        shuffle: int,
        norm_cfg: dict,
        with_cp: bool = False,
    ) -> None:
        super().__init__()
        self.with_cp = with_cp
        self.groups = 2 if shuffle == 1 else place.outputs // 2
        kernel, stride, middle = KERNELS[kind], place.stride, place.outputs // 2

        def separable(inputs: int, outputs: int, stride: int = 1) -> nn.Module:
            return DepthwiseSeparableConvModule(
                inputs,
                outputs,
                kernel,
                stride=stride,
                padding=kernel // 2,
                norm_cfg=norm_cfg,
                dw_act_cfg=None,
            )

        inputs = outputs = middle
        self.projection = None
        if stride == 2:
            inputs, outputs = place.inputs, place.outputs - place.inputs
            self.projection = separable(inputs, inputs, stride)
        if kind == XCEPTION:
            self.branch = nn.Sequential(
                separable(inputs, middle, stride),
                separable(middle, middle),
                separable(middle, outputs),
            )
        else:
            self.branch = nn.Sequential(
                ConvModule(inputs, middle, 1, norm_cfg=norm_cfg),
                separable(middle, outputs, stride),
            )

    def forward(self, x: Tensor) -> Tensor:
        if self.projection is None:
            rest, x = functional.channel_shuffle(x, self.groups).chunk(2, dim=1)
        else:
            rest = self.projection(x)
        return torch.cat((rest, self.branch(x)), dim=1)

    def extra_repr(self) -> str:
        return f'groups={self.groups}'


@WEIGHT_INITIALIZERS.register_module()
class DetNASInit:
    """Starts a `DetNASNet` as the authors start their classifiers."""

    def __call__(self, net: 'DetNASNet') -> None:
        for module in net.modules():
            if isinstance(module, nn.Conv2d):
                is_stem = module is net.conv1.conv
                normal_init(module, std=0.01 if is_stem else 1 / module.weight.shape[1])
            elif is_norm(module):
                constant_init(module, 1, bias=1e-4)
        if hasattr(net, '_params_init_info'):
            update_init_info(net, type(self).__name__)


@MODELS.register_module()
class DetNASNet(SearchableBackbone, BaseModule):
    """The net of DetNAS with the blocks given, or with a choice of every block.

    Forward takes images, ``N x 3 x H x W``, and returns a tuple with one
    ``N x out_channels[i] x H/s x W/s`` tensor per entry of `out_indices`. Stages are
    counted from 0, their strides s are 4, 8, 16, 32; 4 is the 1x1 conv, at stride
    32, that a classifier pools, which exists only where it is an output.

    Weights remember how channels were shuffled when they were trained, since the
    weights themselves fit either way. Loading those of the other way, or of no known
    way, is an error.

    Args:
        net: Depth and width: '300M', '1.3G' or '3.8G'.
        blocks: Kinds of the blocks, 0 to 3, by stage or in one list; of a fixed
            network alone.
        supernet: ``None`` for a fixed network; with ``'block'`` every block holds
            all four kinds, each with its own weights and norms.
        shuffle: How a block splits its input, 1 or 2 (`ShuffleBlock`). ``None`` is 1
            for a supernet and 2 for a fixed network, as in the authors' code; the
            network that a supernet's `arch_cfg` describes keeps the supernet's.
        out_indices: Which outputs, of 0 to 4.
        frozen_stages: How many stages are frozen together with the stem, weights
            and statistics; 0 freezes the stem alone, -1 nothing.
        norm_cfg: As in mmdet's backbones.
        norm_eval: Likewise.
        with_cp: As in `ReallocatedBackbone`.
        init_cfg: As in mmengine; ``None`` is `DetNASInit`.
        sizes: Fields of `DetNASSize`, where not the net's own; 1024 `last_channels`
            fit the number of parameters that is published for 3.8G.
    """

    modes = ('block',)

    def __init__(
        self,
        net: str = '300M',
        blocks: Sequence[int | Sequence[int]] | None = None,
        supernet: str | None = None,
        shuffle: int | None = None,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        frozen_stages: int = -1,
        norm_cfg: dict = dict(type='BN'),  # noqa: B006, never changed
        norm_eval: bool = False,
        with_cp: bool = False,
        init_cfg: dict | list[dict] | None = None,
        **sizes: int | Sequence[int] | None,
    ) -> None:
        super().__init__(init_cfg or dict(type='mmcr.DetNASInit'))
        self._check_mode(supernet)
        _check_blocks(supernet, blocks)
        _check_numbers(shuffle, out_indices, frozen_stages)
        self.out_indices = tuple(out_indices)
        self.frozen_stages = frozen_stages
        self.norm_cfg = norm_cfg
        self.norm_eval = norm_eval
        self.with_cp = with_cp
        self.size = size = detnas_size(net, **sizes)
        self.supernet = supernet
        self.shuffle = shuffle or (2 if supernet is None else 1)
        self.space = self.blocks = None
        if supernet is None:
            self.blocks = nested_blocks(blocks, size.stage_blocks)
        else:
            self.space = detnas_space(size)
        shared = {name: value for name, value in sizes.items() if value is not None}
        options = ('out_indices', 'frozen_stages', 'norm_cfg', 'norm_eval', 'with_cp')
        shared.update((name, getattr(self, name)) for name in options)
        self._remember(net=net, shuffle=self.shuffle, **shared)
        self.register_buffer('shuffle_method', torch.tensor(self.shuffle))
        self.conv1 = self._conv(3, size.stem_channels, 3, stride=2, padding=1)
        self.stages = []  # their names
        for stage, places in groupby(block_places(size), lambda place: place.stage):
            self.add_module(stage, nn.Sequential(*map(self._block, places)))
            self.stages.append(stage)
        if LAST in self.out_indices:
            self.conv2 = self._conv(size.stage_channels[-1], size.last_channels, 1)
        self._complete()
        self._freeze()

    def _stem_step(self) -> ForwardStep:
        return ForwardStep(self.conv1, (self.conv1,), (), self.size.stem_channels, 2)

    def _stages(self) -> Iterator[tuple[nn.Module, int, int]]:
        stages = map(self.get_submodule, self.stages)
        yield from zip(stages, self.size.stage_channels, STRIDES)
        if LAST in self.out_indices:
            yield self.conv2, self.size.last_channels, STRIDES[-1]

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x = self.conv1(x)
        outs = []
        for i, (stage, *_) in enumerate(self._stages()):
            x = stage(x)
            if i in self.out_indices:
                outs.append(x)
        return tuple(outs)

    def train(self, mode: bool = True) -> 'DetNASNet':
        super().train(mode)
        self._freeze()
        if mode and self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def _arguments_of(self, arch: Arch) -> dict:
        return dict(blocks=blocks_of(arch))

    def _conv(self, inputs: int, outputs: int, kernel: int, **options) -> ConvModule:
        with warnings.catch_warnings():  # mmcv's, of a bias that a norm takes away
            warnings.simplefilter('ignore', UserWarning)
            conv = ConvModule(
                inputs, outputs, kernel, bias=True, norm_cfg=self.norm_cfg, **options
            )
        conv.is_init = True  # its own start would come after init_cfg's
        return conv

    def _block(self, place: Place) -> nn.Module:
        def build(kind: int) -> nn.Module:
            return ShuffleBlock(place, kind, self.shuffle, self.norm_cfg, self.with_cp)

        if self.supernet is None:
            return build(block_arch(self.blocks)[place.choice])
        kinds = range(len(KERNELS))
        return LayerChoice(place.choice, {kind: build(kind) for kind in kinds})

    def _freeze(self) -> None:
        frozen = ('conv1', *self.stages)[: self.frozen_stages + 1]
        for name in frozen:
            getattr(self, name).eval().requires_grad_(False)

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Tensor], prefix: str, *args
    ) -> None:
        # before anything is copied, as in the base
        mark = f'{prefix}shuffle_method'
        theirs = int(state_dict.get(mark, self.shuffle))
        if theirs != self.shuffle:
            raise CheckpointError(
                f'Weights must be used with the channel shuffle that they were '
                f'trained with, but these were trained with shuffle={theirs} and '
                f'this DetNASNet has shuffle={self.shuffle}. Build it with '
                f'shuffle={theirs}, or give it other weights.'
            )
        own = (prefix + name for name, _ in self.named_parameters())
        if mark not in state_dict and any(name in state_dict for name in own):
            raise CheckpointError(
                f'Weights of a DetNASNet must say with which channel shuffle they '
                f'were trained, but these do not. Put it beside them as {mark!r}, '
                f'torch.tensor(1) or torch.tensor(2); the authors trained supernets '
                f'with 1 and fixed networks with 2.'
            )
        super()._load_from_state_dict(state_dict, prefix, *args)


def _check_blocks(supernet: str | None, blocks: Sequence | None) -> None:
    if supernet is None and blocks is None:
        raise UserError(
            'A fixed DetNASNet needs blocks, the kind (0 to 3) of every block by '
            "stage. Give them, or supernet='block' for a choice of every block."
        )
    if supernet is not None and blocks is not None:
        raise UserError(
            f'The supernet chooses the kind of every block, but got blocks={blocks!r}. '
            f'Leave blocks out.'
        )


def _check_numbers(
    shuffle: int | None, out_indices: Sequence[int], frozen_stages: int
) -> None:
    if shuffle not in (None, 1, 2):
        raise UserError(f'shuffle must be 1 or 2, but got {shuffle!r}.')
    known = isinstance(out_indices, Sequence) and set(out_indices) <= set(range(5))
    if not known or not out_indices:
        raise UserError(
            f'out_indices must be of 0 to 3 for the stages and 4 for the last conv, '
            f'but got {out_indices!r}.'
        )
    if frozen_stages not in range(-1, 5):
        raise UserError(
            f'frozen_stages must be from -1 (nothing) to 4, but got {frozen_stages!r}.'
        )
