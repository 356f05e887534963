"""Computation reallocation of mmdet's backbones: the options that all of them take."""

from collections.abc import Callable, Mapping, Sequence

from torch import nn

from mmcr.checks import is_integer, is_list
from mmcr.errors import UserError
from mmcr.models.layer_choice import (
    ChainChoice,
    LayerChoice,
    dilate,
    open_dilation_choice,
)
from mmcr.models.searchable import SearchableBackbone
from mmcr.registry import is_pretrained
from mmcr.space import (
    Arch,
    Choice,
    SearchSpace,
    blocks_cost,
    dilations_of,
    operation_space,
    stage_blocks_of,
)

SHARES = ('branch', 'prefix')


class ReallocatedBackbone(SearchableBackbone):
    """Mixin: a backbone of mmdet with any number of blocks and any dilations.

    Without the options below it is mmdet's network: same keys, same outputs. mmdet's
    own arguments keep their meaning in every mode. Bad options are a `UserError`.

    Args:
        stage_blocks: tau, the number of blocks of each stage (CR-NAS, Sec. 3.2).
        dilations: Per stage one int or one int per block, the dilation of the 3x3
            convolution of each block (Sec. 3.3).
        supernet: ``None`` for a fixed network; ``'stage'`` holds for every stage one
            branch per choice of its number of blocks, each with its own weights and
            norms; ``'operation'`` holds for every block one 3x3 convolution and norm
            per dilation.
        stage_choices: For the stage supernet, the numbers of blocks to choose from,
            as ``dict(stage1=(1, 2, 3), ...)``. A stage that is left out keeps the
            paper's choices.
        share: What the choices of a stage share in the stage supernet: with
            ``'branch'`` nothing (the paper), with ``'prefix'`` their first blocks
            (elastic depth): k blocks are the first k of one chain.
        dilation_choices: For the operation supernet.
        share_dilation_weights: Whether the 3x3 convolutions of a block share one
            weight; the norms stay separate.
        reallocated_start: Whether an `init_cfg` of type ``Pretrained``, which another
            config has, means `mmcr.ReallocatedInit`.
        with_cp: Whether blocks keep their inputs alone for the backward pass and
            compute the rest again. Unlike mmdet's, also under DDP with
            ``find_unused_parameters``, and with norms that count each batch once.
    """

    modes = ('stage', 'operation')
    stage_cost = staticmethod(blocks_cost)  # what a stage of so many blocks costs

    def _reallocate(
        self,
        network: dict,
        stage_blocks: tuple[int, ...],
        dilations: Sequence[int | Sequence[int]] | None,
        paper: Sequence[Choice],
        *,
        supernet: str | None = None,
        stage_choices: Mapping[str, Sequence[int]] | None = None,
        share: str = 'branch',
        dilation_choices: Sequence[int] = (1, 2, 3),
        share_dilation_weights: bool = False,
        reallocated_start: bool = False,
        **mmdets,
    ) -> dict:
        """Checks and keeps the options, before mmdet's constructor runs.

        `network` has the arguments that say which network it is (`depth`), `paper` the
        paper's choices of numbers of blocks; `stage_blocks` are checked already.
        Returns what is left for mmdet's constructor.
        """
        first = self.first_stage
        self._check_arguments(mmdets)
        start = mmdets.get('init_cfg')
        if reallocated_start and is_pretrained(start):
            mmdets['init_cfg'] = dict(start, type='mmcr.ReallocatedInit')
        # a stage 0, and one after the last, are single blocks that dilate alone
        all_blocks = stage_blocks if first else (1, *stage_blocks, 1)
        neutral = (1,) * len(all_blocks)
        if dilations is None:
            dilations = neutral
        dilations = _checked_dilations(dilations, all_blocks, first)
        self._check_mode(supernet)
        _check_meaning(supernet, dilations, share)
        self.supernet, self.share = supernet, share
        self.stage_blocks = stage_blocks
        self.dilation_choices = dilation_choices
        self.share_dilation_weights = share_dilation_weights
        self.space = None
        if supernet == 'stage':
            self.space = _stage_space(stage_choices, paper, self.stage_cost)
        elif supernet == 'operation':
            self.space = operation_space(all_blocks, dilation_choices, first)
        self._dilations = dict(enumerate(dilations, first))
        self._remember(**network, stage_blocks=stage_blocks, **mmdets)
        if dilations != neutral:
            self._fixed_cfg['dilations'] = dilations
        return mmdets

    @property
    def shortcuts(self) -> tuple[bool, ...]:
        """Whether further blocks of each stage can start as the identity."""
        return (True,) * len(self.stage_blocks)

    def _dilating(self, block: nn.Module) -> tuple[nn.Module, str, str | None]:
        """Where the 3x3 convolution is: its parent, its name, its norm's name."""
        raise NotImplementedError

    def _build_stage(
        self, stage: int, blocks: int, build: Callable[[int], nn.Sequential]
    ) -> nn.Module:
        """Builds a stage, or the choice of it.

        `build` makes one of so many blocks, as mmdet does.
        """

        def dilated(blocks: int) -> nn.Sequential:
            layer, rates = build(blocks), self._dilations[stage]
            for i, block in enumerate(layer):
                if self.supernet == 'operation':
                    options = self.dilation_choices, self.share_dilation_weights
                    place = *self._dilating(block), f'stage{stage}.{i}'
                    open_dilation_choice(*place, *options)
                elif rates != 1:
                    parent, conv, _ = self._dilating(block)
                    rate = rates if isinstance(rates, int) else rates[i]
                    dilate(getattr(parent, conv), rate)
            return layer

        if self.supernet == 'stage':
            for choice in self.space.choices:
                if choice.name != f'stage{stage}':
                    continue
                if self.share == 'prefix':
                    return ChainChoice(choice, dilated)
                return LayerChoice(choice.name, {n: dilated(n) for n in choice.values})
        return dilated(blocks)

    def _arguments_of(self, arch: Arch) -> dict:
        if self.supernet == 'stage':
            return dict(stage_blocks=stage_blocks_of(arch))
        return dict(dilations=dilations_of(arch))


def checked_blocks(
    stage_blocks: Sequence[int] | None,
    baseline: Sequence[int],
    name: str = 'stage_blocks',
) -> tuple[int, ...]:
    """Returns the numbers of blocks, one per stage; ``None``: the baseline's."""
    if stage_blocks is None:
        return tuple(baseline)
    if not _are_positive(stage_blocks, len(baseline)):
        raise UserError(
            f'{name} must hold {len(baseline)} numbers of blocks, each '
            f'at least 1, but got {stage_blocks!r}.'
        )
    return tuple(stage_blocks)


def _checked_dilations(
    dilations: Sequence[int | Sequence[int]], stage_blocks: tuple[int, ...], first: int
) -> tuple[int | tuple[int, ...], ...]:
    if not is_list(dilations) or len(dilations) != len(stage_blocks):
        raise UserError(
            f'dilations must have one entry per stage, {len(stage_blocks)} in all, '
            f'but got {dilations!r}.'
        )
    for stage, (entry, blocks) in enumerate(zip(dilations, stage_blocks), first):
        if not _are_positive(entry if is_list(entry) else [entry] * blocks, blocks):
            raise UserError(
                f'dilations of stage {stage} must be one int or one int per block '
                f'({blocks}), each at least 1, but got {entry!r}.'
            )
    return tuple(tuple(d) if is_list(d) else d for d in dilations)


def _check_meaning(supernet: str | None, dilations: tuple, share: str) -> None:
    if supernet is not None and any(not isinstance(d, int) for d in dilations):
        raise UserError(
            f'dilations per block describe a fixed network, but this is a '
            f'{supernet} supernet: {dilations}. Leave dilations out.'
        )
    if supernet == 'operation' and any(d != 1 for d in dilations):
        raise UserError(
            f'The operation supernet chooses the dilation of every block, so '
            f'dilations must stay at 1, but got {dilations}.'
        )
    if share not in SHARES:
        raise UserError(f'share must be one of {SHARES}, but got {share!r}.')


def _stage_space(
    stage_choices: Mapping[str, Sequence[int]] | None,
    paper: Sequence[Choice],
    cost: Callable[[str, int], float],
) -> SearchSpace:
    given = {} if stage_choices is None else stage_choices
    defaults = {choice.name: choice.values for choice in paper}
    if not isinstance(given, Mapping) or not given.keys() <= defaults.keys():
        raise UserError(
            f'stage_choices must map some of {list(defaults)} to numbers '
            f'of blocks, but got {given!r}.'
        )
    chosen = {**defaults, **given}
    for name, values in chosen.items():
        if not _are_positive(values):
            raise UserError(
                f'stage_choices of {name} must be numbers of blocks, each '
                f'at least 1, but got {values!r}.'
            )
    return SearchSpace((Choice(*item) for item in chosen.items()), cost)


def _are_positive(values: object, length: int | None = None) -> bool:
    return (
        is_list(values)
        and length in (None, len(values))
        and all(is_integer(value, 1) for value in values)
    )
