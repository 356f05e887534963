"""The paper's search spaces (CR-NAS, Sec. 3.1 and 3.2) and how to write them.

Stage choices are `stage1`, `stage2`, ... with the number of blocks as value;
operation choices are `stage1.0`, `stage1.1`, ... with the dilation rate as value.
MobileNetV2 has an inverted residual before and one after the searched stages; their
dilations are `stage0.0` and `stage6.0`. What is written in another way is an
`ArchError`.
"""

from collections.abc import Mapping, Sequence
from itertools import count, takewhile

from mmcr.checks import check_integer, is_list
from mmcr.space.arch import Arch, ArchError
from mmcr.space.cost import Budget
from mmcr.space.space import Choice, SearchSpace

RESNET_STAGES = (
    Choice('stage1', range(1, 11)),
    Choice('stage2', range(1, 11)),
    Choice('stage3', (2, 3, 5, 6, 9, 11, 14, 17, 20, 23)),
    Choice('stage4', (2, 3, 4, 6, 7, 9, 11, 13, 15, 17)),
)
MOBILENETV2_STAGES = (
    Choice('stage1', range(1, 6)),
    Choice('stage2', range(1, 6)),
    Choice('stage3', range(3, 8)),
    Choice('stage4', range(2, 7)),
    Choice('stage5', range(2, 7)),
)
# even numbers: windows are plain and shifted by turns
SWIN_STAGES = (
    Choice('stage1', range(2, 9, 2)),
    Choice('stage2', range(2, 9, 2)),
    Choice('stage3', range(2, 25, 2)),
    Choice('stage4', range(2, 9, 2)),
)
MOBILENETV2_COSTS = dict(stage1=1.5, stage2=1, stage3=1, stage4=0.75, stage5=1.25)


def blocks_cost(choice: str, blocks: int) -> int:
    """Returns the cost of a ResNet stage in blocks.

    From stage to stage the resolution halves and the channels double, so that a
    block costs the same everywhere.
    """
    return blocks


def resnet_stage_space(blocks: int | None = None) -> SearchSpace:
    """Returns the stage reallocation space of ResNet and ResNeXt.

    `blocks` is how many an architecture has in all (8 as ResNet-18, 16 as ResNet-50, 33
    as ResNet-101); None for any number, as a supernet has.
    """
    budget = None if blocks is None else Budget.exactly(blocks)
    return SearchSpace(RESNET_STAGES, blocks_cost, budget)


def blocks_around(baseline: Sequence[int]) -> tuple[Choice, ...]:
    """Returns choices around a network's own numbers of blocks: to twice and one more.

    For backbones that the paper does not search.
    """
    return tuple(
        Choice(f'stage{stage}', range(1, 2 * blocks + 2))
        for stage, blocks in enumerate(baseline, 1)
    )


def mobilenetv2_cost(stage: str, blocks: int) -> float:
    """Returns the cost of a MobileNetV2 stage; a block of stage 2 or 3 costs 1."""
    return MOBILENETV2_COSTS[stage] * blocks


def mobilenetv2_stage_space(cost: float | None = None) -> SearchSpace:
    """Returns the stage reallocation space of MobileNetV2.

    `cost` is that of an architecture (16 as MobileNetV2 itself, which leaves 43); None
    for any cost, as a supernet has.
    """
    budget = None if cost is None else Budget.exactly(cost)
    return SearchSpace(MOBILENETV2_STAGES, mobilenetv2_cost, budget)


def mobilenetv2_stage_blocks(code: Sequence[int]) -> tuple[int, ...]:
    """Returns the blocks of the five searched stages.

    `code` is those five numbers, or the paper's ten: stem, first inverted residual, the
    five, last inverted residual, 1x1 conv, classifier.
    """
    numbers = stage_blocks_of(stage_arch(code))
    searched = numbers[2:7] if len(numbers) == 10 else numbers
    if numbers not in (searched, (1, 1, *searched, 1, 1, 1)) or len(searched) != 5:
        raise ArchError(
            'stage_blocks of MobileNetV2 must be five numbers m1 to m5 or the code '
            f'[1, 1, m1, m2, m3, m4, m5, 1, 1, 1], but got {list(code)}'
        )
    return searched


def operation_space(
    stage_blocks: Sequence[int], dilations: Sequence[int] = (1, 2, 3), first: int = 1
) -> SearchSpace:
    """Returns the dilation space: one rate for the 3x3 convolution of every block.

    Dilation changes neither parameters nor FLOPs, so the space has no cost.

    Args:
        stage_blocks: Blocks per stage; any numbers, in a stage space or not.
        dilations: The rates to choose among.
        first: The number of the first stage; 0 for MobileNetV2, with one block there
            and one in the last stage.
    """
    rates = [_positive(rate, 'dilations') for rate in _list(dilations, 'dilations')]
    return SearchSpace(
        Choice(f'stage{stage}.{block}', rates)
        for stage, blocks in enumerate(stage_arch(stage_blocks).values(), first)
        for block in range(blocks)
    )


def stage_arch(stage_blocks: Sequence[int]) -> Arch:
    """Returns the architecture with so many blocks per stage, as [3, 4, 6, 3]."""
    return Arch(
        {
            f'stage{stage}': _positive(blocks, f'stage_blocks of stage {stage}')
            for stage, blocks in enumerate(_list(stage_blocks, 'stage_blocks'), start=1)
        }
    )


def stage_blocks_of(arch: Mapping[str, int]) -> tuple[int, ...]:
    """Returns the blocks per stage of a complete stage architecture."""
    names = [f'stage{stage}' for stage in range(1, len(arch) + 1)]
    if not names or set(names) != set(arch):
        raise ArchError(
            'a stage architecture decides stage1, stage2, ... without a gap and '
            f'nothing else, but got {list(arch)}'
        )
    return tuple(arch[name] for name in names)


def dilation_arch(dilations: Sequence[Sequence[int]], first: int = 1) -> Arch:
    """Returns the architecture with these dilation rates, a list per stage.

    `first` is the number of the first stage, 0 for MobileNetV2.
    """
    return Arch(
        {
            f'stage{stage}.{block}': _positive(rate, f'dilations of stage {stage}')
            for stage, rates in enumerate(_list(dilations, 'dilations'), first)
            for block, rate in enumerate(_list(rates, f'dilations of stage {stage}'))
        }
    )


def dilations_of(arch: Mapping[str, int]) -> tuple[tuple[int, ...], ...]:
    """Returns the dilation rates of a complete operation architecture, by stage."""
    dilations = []
    first = 0 if 'stage0.0' in arch else 1
    while f'stage{first + len(dilations)}.0' in arch:
        stage = first + len(dilations)
        names = (f'stage{stage}.{block}' for block in count())
        names = list(takewhile(lambda name: name in arch, names))
        dilations.append(tuple(arch[name] for name in names))
    if not dilations or sum(map(len, dilations)) != len(arch):
        raise ArchError(
            'an operation architecture decides stage1.0, stage1.1, ..., stage2.0, '
            f'... without a gap and nothing else, but got {list(arch)}'
        )
    return tuple(dilations)


def _positive(value, name: str) -> int:
    check_integer(name, value, error=ArchError)
    return value


def _list(values, name: str) -> Sequence:
    if not is_list(values) or not values:
        raise ArchError(f'{name} must be a list and not empty, but got {values!r}')
    return values
