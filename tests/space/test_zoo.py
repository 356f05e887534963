import pytest

from mmcr.space import (
    PUBLISHED,
    ArchError,
    PublishedMobileNetV2,
    dilation_arch,
    mobilenetv2_stage_space,
    operation_space,
    resnet_stage_space,
    stage_arch,
)

WITH_CODES = ('r18', 'r50', 'r101')


def test_the_rows_of_the_paper():
    rows = {name: (list(p.baseline), list(p.stage_cr)) for name, p in PUBLISHED.items()}
    assert rows == {
        'r18': ([2, 2, 2, 2], [1, 1, 2, 4]),
        'r50': ([3, 4, 6, 3], [1, 3, 5, 7]),
        'r101': ([3, 4, 23, 3], [2, 3, 17, 11]),
        'x50': ([3, 4, 6, 3], [2, 2, 6, 6]),
        'x101': ([3, 4, 23, 3], [3, 4, 15, 11]),
        'mobilenetv2': ([2, 3, 4, 3, 3], [2, 2, 3, 4, 4]),
    }
    assert [p.depth for p in PUBLISHED.values()] == [18, 50, 101, 50, 101, None]


@pytest.mark.parametrize('name', PUBLISHED)
def test_baseline_and_stage_cr_are_members_of_the_stage_space(name):
    published = PUBLISHED[name]
    if name == 'mobilenetv2':
        space = mobilenetv2_stage_space(16)
    else:
        space = resnet_stage_space(sum(published.baseline))
    arch = stage_arch(published.stage_cr)
    assert stage_arch(published.baseline) in space
    assert space.cost_of(arch) in space.budget
    if name != 'x101':
        assert arch in space


def test_the_space_is_not_widened_for_resnext101():
    arch = stage_arch(PUBLISHED['x101'].stage_cr)
    with pytest.raises(ArchError, match='stage3=15 is not in this space; stage3 must'):
        resnet_stage_space(33).validate(arch)
    # What runs on any tau: the operation space of the very same network.
    assert operation_space(PUBLISHED['x101'].stage_cr).size == 3**33


@pytest.mark.parametrize('name', WITH_CODES)
def test_dilations_are_members_of_the_operation_space(name):
    published = PUBLISHED[name]
    assert tuple(map(len, published.dilations)) == published.stage_cr
    arch = dilation_arch(published.dilations)
    assert arch in operation_space(published.stage_cr)
    assert tuple(rate - 1 for rate in arch.values()) == published.dilation_code


def test_dilations_by_stage():
    assert PUBLISHED['r18'].dilations == ((1,), (1,), (2, 1), (2, 1, 3, 2))
    assert PUBLISHED['r50'].dilations[3] == (1, 2, 1, 3, 2, 2, 3)
    assert PUBLISHED['r101'].dilations[3] == (2, 2, 1, 1, 2, 1, 2, 3, 1, 2, 2)
    assert PUBLISHED['x50'].dilations is None


def test_mobilenetv2_dilations():
    published = PUBLISHED['mobilenetv2']
    assert len(published.dilation_code) == 20
    assert published.dilations == (
        (2,), (1, 2), (1, 3), (1, 2, 2), (1, 1, 2, 2), (1, 2, 2, 1), (3,),
    )  # fmt: skip
    arch = dilation_arch(published.dilations, first=0)
    assert arch in operation_space((1, *published.stage_cr, 1), first=0)
    assert published.dilation_code == (0, *(r - 1 for r in arch.values()), 0, 0)
    assert PublishedMobileNetV2(None, (1,) * 5, (1,) * 5).dilations is None
