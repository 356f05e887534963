from types import SimpleNamespace

import pytest
from mmdet.registry import MODELS
from nets import RESNET, SUPERNETS, build, equal, images, in_mode, some_archs
from torch import nn

from mmcr.errors import UserError
from mmcr.models.detector import find_backbone
from mmcr.scoring.paths import run_paths
from mmcr.space import stage_arch

pytestmark = pytest.mark.usefixtures('quiet_mmdet')


@pytest.fixture(params=SUPERNETS)
def supernet(request):
    return in_mode(build(SUPERNETS[request.param]), False)


def plainly(prefix, step, x):
    return step.run(x)


def test_outputs_are_those_of_each_architecture_alone(supernet):
    archs = some_archs(supernet.space, 6)
    archs.append(archs[2])
    x = images()
    found = {}
    for members, outs in run_paths(supernet, archs, x, plainly):
        assert supernet.arch == archs[members[0]]
        assert not found.keys() & set(members)
        found.update({member: outs for member in members})
    assert sorted(found) == list(range(7))
    assert found[2] is found[6]
    for index, arch in enumerate(archs):
        supernet.set_arch(arch)
        assert equal(found[index], supernet(x))


def test_each_distinct_beginning_runs_once(supernet):
    archs = some_archs(supernet.space, 6)
    calls = []

    def run(prefix, step, x):
        calls.append(prefix)
        return step.run(x)

    for _ in run_paths(supernet, archs, images(), run):
        pass
    beginnings, names = set(), []
    for depth, step in enumerate(supernet.steps()):
        names += step.choices
        beginnings |= {(depth, tuple(arch[name] for name in names)) for arch in archs}
    assert sorted(calls) == sorted(beginnings)
    assert len(calls) < len(supernet.steps()) * len(archs)


def test_calls_of_an_example_written_out():
    supernet = build(SUPERNETS['r18-stage'])
    archs = [
        stage_arch(blocks) for blocks in ((1, 1, 1, 2), (3, 1, 1, 1), (1, 1, 1, 1))
    ]
    events = []

    def run(prefix, step, x):
        events.append(prefix)
        return step.run(x)

    for members, _ in run_paths(supernet, archs, images(32), run):
        events.append(members)
    assert events == [
        (0, ()),
        (1, (1,)),
        (2, (1, 1)),
        (3, (1, 1, 1)),
        (4, (1, 1, 1, 1)),
        [2],
        (4, (1, 1, 1, 2)),
        [0],
        (1, (3,)),
        (2, (3, 1)),
        (3, (3, 1, 1)),
        (4, (3, 1, 1, 1)),
        [1],
    ]


def test_nothing_to_run():
    supernet = build(SUPERNETS['r18-stage'])
    assert list(run_paths(supernet, [], images(32), plainly)) == []


@pytest.mark.parametrize(
    'make',
    [
        lambda: MODELS.build(dict(RESNET, depth=18)),
        lambda: nn.Conv2d(3, 3, 1),
        type(None),
    ],
    ids=('fixed', 'other', 'none'),
)
def test_find_backbone_wants_a_supernet(make):
    backbone = make()
    with pytest.raises(UserError, match=f'{type(backbone).__name__}.*supernet='):
        find_backbone(SimpleNamespace(backbone=backbone))
