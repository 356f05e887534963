import pytest

from mmcr.space import (
    MOBILENETV2_STAGES,
    ArchError,
    BudgetError,
    Choice,
    blocks_around,
    dilation_arch,
    dilations_of,
    mobilenetv2_cost,
    mobilenetv2_stage_blocks,
    mobilenetv2_stage_space,
    operation_space,
    stage_arch,
    stage_blocks_of,
)


def test_stage_blocks():
    arch = stage_arch([3, 4, 15, 11])
    assert arch == {'stage1': 3, 'stage2': 4, 'stage3': 15, 'stage4': 11}
    assert stage_blocks_of(arch) == (3, 4, 15, 11)
    assert stage_blocks_of(dict(reversed(list(arch.items())))) == (3, 4, 15, 11)


def test_choices_around_a_networks_own_blocks():
    assert blocks_around((1, 3)) == (
        Choice('stage1', (1, 2, 3)),
        Choice('stage2', (1, 2, 3, 4, 5, 6, 7)),
    )


def test_dilations():
    dilations = ((1,), (2, 3), (1,) * 11)
    arch = dilation_arch(dilations)
    assert list(arch)[:4] == ['stage1.0', 'stage2.0', 'stage2.1', 'stage3.0']
    assert dilations_of(arch) == dilations
    shuffled = sorted(arch.items())
    assert [name for name, _ in shuffled] != list(arch)
    assert dilations_of(dict(shuffled)) == dilations


def test_operation_space_has_one_choice_per_block():
    space = operation_space([1, 2], dilations=(1, 3))
    assert space.choices == tuple(
        Choice(name, (1, 3)) for name in ('stage1.0', 'stage2.0', 'stage2.1')
    )
    assert dilations_of(next(iter(space))) == ((1,), (1, 1))


def test_mobilenetv2_stage_space():
    ends = [(choice.values[0], choice.values[-1]) for choice in MOBILENETV2_STAGES]
    assert ends == [(1, 5), (1, 5), (3, 7), (2, 6), (2, 6)]
    assert mobilenetv2_stage_space().size == 5**5
    space = mobilenetv2_stage_space(16)
    assert space.size == 43
    assert stage_arch([2, 3, 4, 3, 3]) in space
    assert stage_arch([2, 3, 4, 3, 4]) not in space


def test_mobilenetv2_costs():
    costs = [mobilenetv2_cost(choice.name, 4) for choice in MOBILENETV2_STAGES]
    assert costs == [6, 4, 4, 3, 5]
    with pytest.raises(
        BudgetError, match='16.1; the nearest reachable .* 16 and 16.25'
    ):
        mobilenetv2_stage_space(16.1)


def test_mobilenetv2_notations():
    five = (2, 2, 3, 4, 4)
    assert mobilenetv2_stage_blocks(list(five)) == five
    assert mobilenetv2_stage_blocks([1, 1, *five, 1, 1, 1]) == five
    # outside of the space, but a network
    assert mobilenetv2_stage_blocks([9] * 5) == (9,) * 5


def test_operation_space_of_mobilenetv2_counts_from_stage_0():
    space = operation_space([1, 1, 2, 1, 1, 1, 1], first=0)
    names = [choice.name for choice in space.choices]
    assert names[:4] == ['stage0.0', 'stage1.0', 'stage2.0', 'stage2.1']
    dilations = ((2,), (1,), (1, 3), (1,), (1,), (2,), (3,))
    arch = dilation_arch(dilations, first=0)
    assert arch in space
    assert dilations_of(arch) == dilations


@pytest.mark.parametrize(
    ('call', 'message'),
    [
        (lambda: mobilenetv2_stage_blocks([1, 2, 3]), r'm1 to m5 .* got \[1, 2, 3\]'),
        (lambda: mobilenetv2_stage_blocks([1] * 7), 'five numbers m1 to m5'),
        (lambda: mobilenetv2_stage_blocks([1] * 9 + [2]), r'm5, 1, 1, 1\], but got'),
        (lambda: mobilenetv2_stage_blocks([2] + [1] * 9), r'm5, 1, 1, 1\], but got'),
        (lambda: mobilenetv2_stage_blocks(5), 'must be a list .* but got 5'),
        (lambda: mobilenetv2_stage_blocks([1, 1, 0, 1, 1]), 'at least 1, but got 0'),
        (lambda: dilations_of({'stage0.0': 1, 'stage2.0': 1}), 'without a gap'),
        (lambda: stage_arch([3, 0]), 'stage 2 must be .* at least 1, but got 0'),
        (lambda: stage_arch([3, '4']), "stage 2 must be .* at least 1, but got '4'"),
        (lambda: stage_arch([]), r'list and not empty, but got \[\]'),
        (lambda: stage_arch('3463'), "list and not empty, but got '3463'"),
        (lambda: dilation_arch([[1], []]), 'stage 2 must be a list and not empty'),
        (lambda: dilation_arch([1, 2]), 'stage 1 must be a list .* but got 1'),
        (lambda: dilation_arch([[0]]), 'at least 1, but got 0'),
        (lambda: operation_space([2], (0, 1)), 'dilations must be an integer of at le'),
        (lambda: operation_space([2, -1]), 'at least 1, but got -1'),
        (lambda: operation_space(8), 'stage_blocks must be a list .* but got 8'),
        (lambda: stage_blocks_of({'stage1': 3, 'stage3': 1}), 'without a gap'),
        (lambda: stage_blocks_of({'stage1.0': 3}), r"got \['stage1.0'\]"),
        (lambda: stage_blocks_of({}), r'but got \[\]'),
        (lambda: dilations_of({'stage1.0': 1, 'stage1.2': 1}), 'without a gap'),
        (lambda: dilations_of({'stage2.0': 1}), 'without a gap'),
        (lambda: dilations_of({'stage1': 1}), r"got \['stage1'\]"),
    ],
)
def test_bad_input_is_an_arch_error(call, message):
    with pytest.raises(ArchError, match=message):
        call()
