"""Checks of the arguments that all searchable backbones take."""

from collections.abc import Callable, Mapping, Sequence

from mmcr.checks import is_integer, is_list
from mmcr.errors import UserError
from mmcr.space import Choice, SearchSpace

SUPERNETS = ('stage', 'operation')
SHARES = ('branch', 'prefix')


def check_supernet(supernet: str | None, dilations: tuple, share: str) -> None:
    """Checks the mode, and that it leaves `dilations` a meaning.

    `share` has one in stage supernets alone; elsewhere it may stay in the config.

    Args:
        supernet: ``None`` or one of `SUPERNETS`.
        dilations: As `checked_dilations` returns them.
        share: One of `SHARES`.

    Raises:
        UserError: There is no such mode, or it decides the dilations, or no such way
            to share.
    """
    if supernet is not None and supernet not in SUPERNETS:
        raise UserError(
            f'supernet must be None or one of {SUPERNETS}, but got {supernet!r}.'
        )
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


def checked_blocks(stage_blocks: Sequence[int], num_stages: int) -> tuple[int, ...]:
    """Returns the numbers of blocks, one per stage, as a tuple."""
    if (
        not is_list(stage_blocks)
        or len(stage_blocks) != num_stages
        or not all(is_integer(n, 1) for n in stage_blocks)
    ):
        raise UserError(
            f'stage_blocks must hold {num_stages} numbers of blocks, each '
            f'at least 1, but got {stage_blocks!r}.'
        )
    return tuple(stage_blocks)


def checked_dilations(
    dilations: Sequence[int | Sequence[int]],
    stage_blocks: tuple[int, ...],
    first: int = 1,
) -> tuple[int | tuple[int, ...], ...]:
    """Returns the dilations, one int or one int per block for every stage.

    Args:
        dilations: What the user gave.
        stage_blocks: Blocks per stage, checked.
        first: The number that messages give the first stage.
    """
    if not is_list(dilations) or len(dilations) != len(stage_blocks):
        raise UserError(
            f'dilations must have one entry per stage, {len(stage_blocks)} in all, '
            f'but got {dilations!r}.'
        )
    for stage, (entry, blocks) in enumerate(zip(dilations, stage_blocks), first):
        values = entry if is_list(entry) else [entry] * blocks
        if len(values) != blocks or not all(is_integer(d, 1) for d in values):
            raise UserError(
                f'dilations of stage {stage} must be one int or one int per block '
                f'({blocks}), each at least 1, but got {entry!r}.'
            )
    return tuple(tuple(d) if is_list(d) else d for d in dilations)


def stage_space(
    stage_choices: Mapping[str, Sequence[int]] | None,
    paper: Sequence[Choice],
    cost: Callable[[str, int], float],
) -> SearchSpace:
    """Returns what a stage supernet chooses from.

    Args:
        stage_choices: Numbers of blocks by name of the stage.
        paper: The paper's choices, for the stages that are left out.
        cost: What a stage of so many blocks costs.
    """
    stage_choices = {} if stage_choices is None else stage_choices
    defaults = {choice.name: choice.values for choice in paper}
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
        if not is_list(values) or not all(is_integer(n, 1) for n in values):
            raise UserError(
                f'stage_choices of {name} must be numbers of blocks, each '
                f'at least 1, but got {values!r}.'
            )
    return SearchSpace(
        [Choice(name, values) for name, values in chosen.items()], cost=cost
    )
