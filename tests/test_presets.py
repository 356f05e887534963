import pytest

from mmcr.space import (
    ArchError,
    Choice,
    dilation_arch,
    dilations_of,
    operation_space,
    stage_arch,
    stage_blocks_of,
)


def test_stage_blocks():
    arch = stage_arch([3, 4, 15, 11])
    assert arch == {'stage1': 3, 'stage2': 4, 'stage3': 15, 'stage4': 11}
    assert stage_blocks_of(arch) == (3, 4, 15, 11)
    assert stage_blocks_of(dict(reversed(list(arch.items())))) == (3, 4, 15, 11)


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


@pytest.mark.parametrize(
    ('call', 'message'),
    [
        (lambda: stage_arch([3, 0]), 'stage 2 must be at least 1, but got 0'),
        (lambda: stage_arch([3, '4']), "stage 2 must be an integer, but got '4'"),
        (lambda: stage_arch([]), r'list and not empty, but got \[\]'),
        (lambda: stage_arch('3463'), "list and not empty, but got '3463'"),
        (lambda: dilation_arch([[1], []]), 'stage 2 must be a list and not empty'),
        (lambda: dilation_arch([1, 2]), 'stage 1 must be a list .* but got 1'),
        (lambda: dilation_arch([[0]]), 'at least 1, but got 0'),
        (lambda: operation_space([2, 2], (0, 1)), 'dilations must be at least 1'),
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
