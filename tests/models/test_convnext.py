"""What mmpretrain's ConvNeXt has that other backbones have not."""

import sys

import pytest
import torch
from baselines import outputs, reallocated, source
from mmcv.cnn.bricks import DropPath
from mmdet.registry import MODELS
from mmengine.optim import build_optim_wrapper
from nets import CONVNEXT, build, equal, fixed_of, mmdets, some_archs
from torch import nn

from mmcr.engine.launch import read_config
from mmcr.errors import UserError
from mmcr.models import reallocate
from mmcr.models.backbones import convnext
from mmcr.space import stage_arch

pytestmark = pytest.mark.usefixtures('quiet_mmdet')


def test_without_mmpretrain_a_message_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(convnext, 'MISSING', "No module named 'einops'")
    with pytest.raises(UserError, match=r"einops'.*pip install .*onedl-mmpretrain"):
        MODELS.build(dict(CONVNEXT))
    monkeypatch.setitem(sys.modules, 'mmpretrain.models', None)
    config = tmp_path / 'mine.py'
    config.write_text("custom_imports = dict(imports=['mmpretrain.models'])")
    with pytest.raises(UserError, match='(?s)mine.py .*install .*onedl-mmpretrain'):
        read_config(config, dict(allow_failed_imports=False))


@pytest.fixture
def mmpretrain():
    pytest.importorskip('mmpretrain.models', reason='mmpretrain is optional')


def rates_of(net):
    return [m.drop_prob for m in net.modules() if isinstance(m, DropPath)]


@pytest.mark.usefixtures('mmpretrain')
@pytest.mark.parametrize('share', ['branch', 'prefix'])
def test_stochastic_depth_of_a_path_is_that_of_its_network(share):
    choices = {f'stage{i}': (1, 3) for i in range(1, 5)}
    options = dict(supernet='stage', stage_choices=choices, drop_path_rate=0.5)
    net = build(CONVNEXT, share=share, **options)
    for arch in some_archs(net.space, 3):
        net.set_arch(arch)
        path = nn.ModuleList(stage.active_option for stage in net.stages)
        rates = rates_of(path)
        assert rates == rates_of(fixed_of(net, arch)) and max(rates) == 0.5
    theirs = dict(CONVNEXT['arch'], depths=tuple(arch.values()))
    assert rates == rates_of(build(mmdets(CONVNEXT), arch=theirs, drop_path_rate=0.5))


@pytest.mark.usefixtures('mmpretrain')
@pytest.mark.parametrize(
    'options, words',
    [
        (dict(arch='huger'), "one of .*'tiny'.*'huger'"),
        (dict(arch=dict(depths=(1, 2), channels=(8,))), 'of the same length'),
        (dict(gap_before_final_norm=True), 'takes maps'),
        (dict(widen_factor='2'), 'widen_factor must be'),
        (dict(norm_eval=False), 'takes no norm_eval'),
    ],
)
def test_bad_options(options, words):
    with pytest.raises(UserError, match=words):
        build(CONVNEXT, **options)


@pytest.mark.usefixtures('mmpretrain')
def test_the_authors_checkpoint():
    """Their names of a classifier, with a norm behind the last stage."""
    before, net = source(mmdets(CONVNEXT)), reallocated(mmdets(CONVNEXT))
    weights = {f'norm.{n}': torch.ones(64) for n in ('weight', 'bias')}
    for name, weight in before.state_dict().items():
        name = name.replace('depthwise_', 'dw').replace('pointwise_', 'pw')
        weights |= {} if name.startswith('norm') else {name: weight}
    report = reallocate(weights, net)
    assert report.ignored == dict(norm=2)
    norms = {n: w for n, w in before.state_dict().items() if n.startswith('norm')}
    assert set(report.kept) == set(norms)
    net.load_state_dict(norms, strict=False)
    assert equal(outputs(net), outputs(before))


def rates_by_name(net, constructor):
    """Learning rates of a detector's weights."""
    detector = nn.Module()
    detector.backbone, detector.head = net, nn.Linear(2, 2)
    cfg = dict(
        type='OptimWrapper',
        constructor=constructor,
        optimizer=dict(type='AdamW', lr=1.0, weight_decay=0.1),
        paramwise_cfg=dict(decay_rate=0.5, decay_type='layer_wise', num_layers=6),
    )
    groups = build_optim_wrapper(detector, cfg).param_groups
    names = {p: name for name, p in detector.named_parameters()}
    return {names[p]: g['lr'] for g in groups for p in g['params'] if p in names}


@pytest.mark.usefixtures('mmpretrain')
@pytest.mark.parametrize('share', ['branch', 'prefix'])
def test_layers_learn_alike_whatever_the_blocks(share):
    own = dict(CONVNEXT, stage_blocks=(2, 2, 9, 1))
    theirs = rates_by_name(build(own), 'LearningRateDecayOptimizerConstructor')
    assert theirs == rates_by_name(build(own), 'mmcr.LayerDecay')
    deep = dict(own, stage_blocks=(3, 2, 14, 2))
    found = rates_by_name(build(deep), 'mmcr.LayerDecay')
    assert theirs.items() <= found.items() and max(found.values()) == 1
    assert found['backbone.stages.2.13.gamma'] == theirs['backbone.stages.2.8.gamma']
    choices = dict(stage1=(3, 2), stage2=(2,), stage3=(9, 14), stage4=(2,))
    net = build(own, supernet='stage', share=share, stage_choices=choices)
    net.set_arch(stage_arch((3, 2, 14, 2)))
    active = {id(p) for p in net.active_parameters()}
    rates = rates_by_name(net, 'mmcr.LayerDecay')
    path = sorted(
        rates[f'backbone.{name}']
        for name, p in net.named_parameters()
        if id(p) in active
    )
    assert path == sorted(r for name, r in found.items() if 'backbone' in name)
