from types import SimpleNamespace

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.model import MMDistributedDataParallel
from nets import RESNET, SUPERNETS, build, equal, images, in_mode, snapshot, some_archs
from torch import nn

from mmcr.errors import UserError
from mmcr.models.detector import find_backbone
from mmcr.scoring.paths import run_paths, untouched
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
    steps = supernet.steps()
    depth = len(steps)
    decided = [
        [name for s in steps[: i + 1] for name in s.choices] for i in range(depth)
    ]
    beginnings = {
        (i, tuple(arch[name] for name in names))
        for arch in archs
        for i, names in enumerate(decided)
    }
    assert sorted(calls) == sorted(beginnings)
    assert len(calls) < depth * len(set(archs))


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


def test_find_backbone_looks_into_wrappers():
    supernet = build(SUPERNETS['r18-stage'])
    detector = nn.Module()
    detector.backbone = supernet
    assert find_backbone(detector) is supernet
    wrapper = MMDistributedDataParallel.__new__(MMDistributedDataParallel)
    nn.Module.__init__(wrapper)
    wrapper.module = detector
    assert find_backbone(wrapper) is supernet


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


@pytest.mark.parametrize('fails', (False, True))
def test_untouched_gives_everything_back(fails):
    model = nn.Module()
    model.backbone = build(SUPERNETS['r50-operation'], norm_eval=True)
    model.head = nn.Sequential(nn.Conv2d(8, 8, 1), nn.Dropout())
    in_mode(model, True).head.eval()
    backbone = model.backbone
    arch, other = some_archs(backbone.space, 2)
    backbone.set_arch(arch)
    backbone.bn1.momentum = 0.25
    state = snapshot(model)
    modes = [module.training for module in model.modules()]
    momenta = [getattr(module, 'momentum', None) for module in model.modules()]
    assert len(set(modes)) == 2

    try:
        with untouched(model, backbone):
            in_mode(model, not model.training)
            backbone.set_arch(other)
            for norm in backbone.modules():
                if isinstance(norm, nn.BatchNorm2d):
                    norm.momentum, norm.training = None, True
            backbone(images())
            assert not equal(model.state_dict(), state)
            if fails:
                raise RuntimeError('in between')
    except RuntimeError:
        assert fails

    assert equal(model.state_dict(), state)
    assert [module.training for module in model.modules()] == modes
    assert [getattr(m, 'momentum', None) for m in model.modules()] == momenta
    assert backbone.arch == arch
    assert all(value.grad_fn is None for value in backbone.buffers())
    assert torch.is_grad_enabled()
