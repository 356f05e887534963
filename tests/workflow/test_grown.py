"""Networks that grow from the user's detector, found by supernets from nothing."""

import json
import runpy
import sys

import pytest
import torch
from config_files import read
from in_process import TOOLS, in_this_process
from mmdet.registry import MODELS

from mmcr.engine.launch import read_config
from mmcr.errors import UserError
from mmcr.models.weights.checkpoint import read_weights
from mmcr.workflow import reallocation
from mmcr.workflow.contests.candidates import Candidate
from mmcr.workflow.estimate import Estimate
from mmcr.workflow.settings import settings_of
from mmcr.workflow.steps import StepRunner
from mmcr.workflow.variants.grown import GrownReallocation, wanted

pytestmark = pytest.mark.usefixtures('quiet_mmdet')


@pytest.fixture
def detector(workplace, monkeypatch):
    """A checkpoint in the workplace, the current folder."""
    monkeypatch.chdir(workplace)
    torch.manual_seed(0)
    weights = MODELS.build(read('demo/shapes.py').model).state_dict()
    torch.save(dict(state_dict=weights), 'detector.pth')
    return workplace / 'detector.pth'


def grown(name, change=lambda cfg: None, **given):
    cfg = read_config('mine.py')
    change(cfg)
    settings = settings_of(cfg.pop('reallocation'), grow=True, **given)
    return GrownReallocation(cfg, 'mine', name, settings, wanted(cfg, settings))


def test_supernets_start_from_nothing_and_networks_from_the_detector(detector):
    made = grown('written', checkpoint='detector.pth', width=0.5)
    made.write()
    assert [step.name for step in made.steps] == [
        *('01_stage_supernet', '02_stage_search', '03_op_supernet', '04_op_search')
    ]
    stage = read_config('written/01_stage_supernet/config.py')
    assert not stage.model.get('init_cfg') and stage.model.backbone.base_channels == 8
    assert any('from nothing' in note for note in made.notes)

    dilations = (1, 2, 1), (1,), (1, 3), (1, 1)
    decided = dict(stage_blocks=(3, 1, 2, 2), dilations=dilations)
    best = Candidate('full_1', None, 0.0, {}, decided)
    networks = made.finals._networks([best])
    assert networks['full_1'].model.backbone.stage_blocks == (3, 1, 2, 2)
    own = made.baseline.cfg
    for name in ('baseline', 'full_1'):
        cfg = networks[name]
        assert cfg.train_cfg.max_epochs == own.train_cfg.max_epochs
        assert cfg.optim_wrapper.optimizer.lr == own.optim_wrapper.optimizer.lr / 2
        assert cfg.param_scheduler == networks['baseline'].param_scheduler
        net = MODELS.build(cfg.model)
        net.init_weights()
        state = net.state_dict()
        given = read_weights('detector.pth')
        both = [key for key in given if key in state]
        assert all(torch.equal(state[key], given[key]) for key in both)
        assert len(both) > 0.8 * len(given)
    assert networks['baseline_given'].train_cfg == own.train_cfg
    assert made.finals.large() is None


def test_what_does_not_go_together_is_refused(detector):
    with pytest.raises(UserError, match='Name its checkpoint by --from'):
        grown('none')
    with pytest.raises(UserError, match='grow=True .* Leave one of them out'):
        settings_of({}, checkpoint='detector.pth', grow=True, front=[0.5, 1])
    with pytest.raises(UserError, match='grow must be'):
        settings_of({}, grow='yes')
    for name, value in dict(method='detnas', scales=[0.5]).items():
        with pytest.raises(UserError, match=f'grow=True .* got {name}='):
            grown(name, checkpoint='detector.pth', **{name: value})
    with pytest.raises(UserError, match='or give --grow'):
        settings_of(dict(width=0.5), checkpoint='detector.pth')


@pytest.mark.slow
def test_from_a_checkpoint_to_the_verdict(detector, workplace, monkeypatch):
    """With one seed that judges."""
    monkeypatch.setattr('mmcr.workflow.settings.LEAST', 2)
    monkeypatch.setattr(StepRunner, '_call', in_this_process)
    tool = str(TOOLS / 'reallocate.py')
    options = '--grow', '--no-dilations', '--candidates', '1', '--trainings', '2'
    argv = [tool, 'mine.py', '--work-dir', 'grown', '--from', 'detector.pth', *options]
    monkeypatch.setattr(sys, 'argv', argv)
    runpy.run_path(tool, run_name='__main__')
    result = workplace / 'grown/result'
    record = json.loads((result / 'comparison.json').read_text())
    names = [row['name'] for row in record['networks']]
    assert names == ['baseline', 'found', 'baseline as given']
    assert 'from your detector block by block' in (result / 'comparison.md').read_text()
    trained = read_config(workplace / 'grown/06_judging/stage_1_seed0/config.py')
    assert trained.model.init_cfg.checkpoint == str(detector)
    assert not any('PairedInit' in hook.type for hook in trained.custom_hooks)
    assert (result / 'best.pth').is_file()


def test_the_baseline_is_as_free_to_learn_as_what_is_found(detector):
    def frozen(cfg):
        cfg.model.backbone.update(
            frozen_stages=1, norm_cfg=dict(type='BN', requires_grad=False)
        )

    made = grown('free', frozen, checkpoint='detector.pth', dilations=False)
    made.write()
    decided = dict(stage_blocks=made.baseline.stage_blocks)
    networks = made.finals._networks([Candidate('same', None, 0.0, {}, decided)])
    free = [
        {
            n
            for n, p in MODELS.build(networks[name].model).named_parameters()
            if p.requires_grad
        }
        for name in ('baseline', 'same')
    ]
    assert free[0] == free[1]


def test_what_cannot_be_trained_on_is_refused_before_anything_is_trained(detector):
    def without_rate(cfg):
        cfg.optim_wrapper.optimizer = dict(type='AdamW', weight_decay=0.05)

    with pytest.raises(UserError, match='names none as optim_wrapper.optimizer.lr'):
        grown('rate', without_rate, checkpoint='detector.pth').write()


def test_a_plan_knows_how_long_networks_are_trained(detector, monkeypatch):
    timed = Estimate(1, 1000, 1, 1, 1)
    monkeypatch.setattr(reallocation, 'estimate', lambda path: timed)

    def judging(length):
        made = grown('plan', checkpoint='detector.pth', warm=dict(length=length))
        made.write()
        made.plan()
        return made.estimates['06_judging'][0]

    first = judging(1.0)
    assert judging(3.0) > 2 * first and judging(1.0) == first
