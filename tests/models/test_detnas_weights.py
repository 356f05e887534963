"""Weights of DetNAS's backbone: how channels were shuffled, training, resuming."""

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.runner import Runner, load_checkpoint
from nets import (
    DETNAS,
    SUPERNETS,
    build,
    equal,
    fixed_of,
    on_path,
    snapshot,
    some_archs,
)
from tiny import train_cfg
from torch import nn

from mmcr.errors import UserError
from mmcr.models import inherit_weights, path_state_dict
from mmcr.models.weights.checkpoint import CheckpointError

pytestmark = pytest.mark.usefixtures('quiet_mmdet')

SUPERNET = SUPERNETS['detnas-block']
BLOCKS = ((0,), (1, 2), (3,), (0, 3))
FIXED = dict(DETNAS, blocks=BLOCKS, stage_blocks=(1, 2, 1, 2))


def test_supernets_shuffle_by_method_1_and_fixed_networks_by_2():
    supernet, fixed = build(SUPERNET), build(FIXED)
    assert (supernet.shuffle, fixed.shuffle) == (1, 2)
    # a path is only itself as long as it shuffles as the supernet
    arch = supernet.arch
    assert supernet.arch_cfg(arch)['shuffle'] == 1
    assert fixed_of(supernet, arch).shuffle == 1
    assert build(SUPERNET, shuffle=2).arch_cfg(arch)['shuffle'] == 2


def strictly(net, state, path):
    net.load_state_dict(state)


def loosely(net, state, path):
    net.load_state_dict(state, strict=False)


def by_mmengine(net, state, path):
    detector = nn.Module()
    detector.backbone = net
    load_checkpoint(detector, path)


def as_pretrained(net, state, path):
    net.init_cfg = dict(type='Pretrained', checkpoint=path, prefix='backbone.')
    net.init_weights()


@pytest.fixture(params=[strictly, loosely, by_mmengine, as_pretrained])
def load(request, tmp_path):
    """A way to load a backbone's weights, in memory or as a detector's checkpoint."""

    def call(net, state):
        inside = {f'backbone.{name}': value for name, value in state.items()}
        torch.save(dict(state_dict=inside), tmp_path / 'detector.pth')
        request.param(net, state, str(tmp_path / 'detector.pth'))

    return call


def test_weights_of_the_other_shuffle_are_refused(load):
    one, two = build(FIXED, shuffle=1), build(FIXED, shuffle=2)
    for theirs, net in ((one, two), (two, one)):
        before = snapshot(net)
        words = f'trained with shuffle={theirs.shuffle} .* has shuffle={net.shuffle}'
        with pytest.raises(CheckpointError, match=words):
            load(net, theirs.state_dict())
        assert equal(net.state_dict(), before)
    fresh = MODELS.build(dict(FIXED, shuffle=1))
    load(fresh, one.state_dict())
    assert equal(fresh.state_dict(), one.state_dict())


def test_weights_must_say_how_they_were_shuffled(load):
    net = build(FIXED)
    state = {n: v for n, v in snapshot(net).items() if n != 'shuffle_method'}
    with pytest.raises(CheckpointError, match=r'must say .*shuffle_method'):
        load(net, state)
    load(net, {**state, 'shuffle_method': torch.tensor(2)})


def test_a_checkpoint_without_the_backbone_says_nothing(tmp_path):
    detector = nn.Module()
    detector.backbone = build(FIXED)
    detector.head = nn.Linear(2, 2)
    head = {'head.weight': torch.ones(2, 2), 'head.bias': torch.ones(2)}
    torch.save(dict(state_dict=head), tmp_path / 'head.pth')
    load_checkpoint(detector, str(tmp_path / 'head.pth'))
    assert (detector.head.weight == 1).all()


def test_a_path_is_not_inherited_by_a_network_of_the_other_shuffle():
    supernet = build(SUPERNET)
    arch = some_archs(supernet.space, 1)[0]
    retrained = MODELS.build(dict(supernet.arch_cfg(arch), shuffle=2))
    with pytest.raises(UserError, match='with shuffle=1 .* has shuffle=2'):
        inherit_weights(supernet, retrained, arch)
    assert path_state_dict(supernet, arch)['shuffle_method'] == 1


def test_training_by_macs_that_is_resumed(shapes, tmp_path):
    def train(folder, **more):
        cfg = train_cfg(shapes, tmp_path / folder, SUPERNET, iterations=4, **more)
        sampler = dict(type='mmcr.CostUniformSampler', bins=2)
        options = dict(seed=3, sampler=sampler, cost='macs', shape=(224, 224))
        cfg.custom_hooks = [
            dict(type='mmcr.ArchSamplingHook', **options),
            dict(type='mmcr.ExactResumeHook'),
        ]
        runner = Runner.from_cfg(cfg)
        start = snapshot(runner.model)
        runner.train()
        return runner.model, start

    model, start = train('whole')
    state = snapshot(model)
    arch = model.backbone.arch
    last = {f'backbone.{name}' for name in on_path(model.backbone, arch)}
    assert all(not torch.equal(state[name], start[name]) for name in last)
    resumed, _ = train('rest', load_from=f'{tmp_path}/whole/iter_2.pth', resume=True)
    assert equal(resumed.state_dict(), state)
    assert resumed.backbone.arch == arch

    with pytest.raises(CheckpointError, match='shuffle=1 .* has shuffle=2'):
        cfg = train_cfg(shapes, tmp_path / 'other', dict(SUPERNET, shuffle=2))
        cfg.load_from = f'{tmp_path}/whole/iter_4.pth'
        Runner.from_cfg(cfg).train()
