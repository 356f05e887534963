"""The commands that turn one checkpoint into another."""

import copy
import json
import os
import runpy
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest
import torch
from baselines import R18, R50, outputs, save_classifier, source
from mmdet.apis import DetInferencer
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.utils import get_installed_path
from nets import equal, in_mode, randomised
from tiny import detector_cfg, loader_cfg, search_cfg, write_checkpoint

from mmcr.data import CLASSES
from mmcr.engine.extract import opened
from mmcr.models import inherit_weights
from mmcr.models.weights.checkpoint import ONLY_WEIGHTS, read_weights
from mmcr.search import Complete, Proposal
from mmcr.space import Arch

pytestmark = pytest.mark.usefixtures('quiet_mmdet')

ROOT = Path(__file__).parents[2]


@pytest.fixture
def tool(tmp_path, monkeypatch):
    """Calls a tool's main in this process: tool('extract_subnet', *arguments)."""
    monkeypatch.chdir(tmp_path)

    def call(name, *arguments):
        monkeypatch.setattr(sys, 'argv', [f'{name}.py', *map(str, arguments)])
        runpy.run_path(
            str(ROOT / f'tools/model_converters/{name}.py'), run_name='__main__'
        )

    return call


def write_config(path, **content):
    Config(copy.deepcopy(content)).dump(path)
    return path


@pytest.mark.parametrize('kind', ('fragment', 'config'))
def test_reallocate_weights(tool, tmp_path, capsys, kind):
    cfg = dict(R50, type='mmcr.CRResNet', stage_blocks=(3, 5, 6, 4))
    content = dict(cr_backbone=dict(cfg, _delete_=True), default_scope=None)
    if kind == 'config':
        other = dict(cfg, init_cfg=dict(type='Pretrained', checkpoint='other.pth'))
        content = dict(model=dict(type='FasterRCNN', backbone=other))
    config = write_config(tmp_path / 'arch.py', **content)
    tool('reallocate_weights', save_classifier(tmp_path, R50), config, 'out.pth')
    written = torch.load('out.pth', weights_only=True)
    net = in_mode(MODELS.build(cfg), False)
    net.load_state_dict(written['state_dict'], strict=True)
    assert equal(outputs(net), outputs(source(R50)))
    said = capsys.readouterr().out
    assert 'layer4           3     4       3     1         0' in said
    assert written['meta']['reallocation'] in said

    tool('reallocate_weights', save_classifier(tmp_path, R50), config, 'again.pth')
    again = torch.load('again.pth', weights_only=True)
    assert equal(written['state_dict'], again['state_dict'])


@pytest.mark.parametrize(
    'checkpoint, content, words',
    [
        ('none.pth', dict(cr_backbone=dict(R18)), 'no file none.pth'),
        (None, dict(x=1), 'cr_backbone'),
        (None, dict(cr_backbone=dict(R18)), 'ResNet-18'),
    ],
)
def test_reallocate_weights_refuses(tool, tmp_path, capsys, checkpoint, content, words):
    config = write_config(tmp_path / 'arch.py', **content)
    with pytest.raises(SystemExit):
        given = checkpoint or save_classifier(tmp_path, R50)
        tool('reallocate_weights', given, config, 'out.pth')
    assert words in capsys.readouterr().err
    assert not list(tmp_path.glob('*out.pth*'))


class Command:
    def __reduce__(self):
        return open, ('hit', 'w')


@pytest.mark.parametrize('name', ['reallocate_weights', 'extract_subnet'])
def test_no_command_and_no_nan(tool, supernet, tmp_path, capsys, monkeypatch, name):
    state = MODELS.build(dict(R18, type='mmcr.CRResNet')).state_dict()
    config = write_config(tmp_path / 'arch.py', cr_backbone=dict(R18))
    arguments = ['given.pth', config, 'out.pth']
    if name == 'extract_subnet':
        arguments, _ = supernet(dict(SUPERNET))
        arguments[1] = 'given.pth'
    monkeypatch.setenv(ONLY_WEIGHTS, '1')
    broken = state['layer1.0.conv1.weight'].clone().fill_(float('nan'))
    for content, words in (
        (dict(state_dict=state, mine=Command()), 'would run io.open'),
        ({**state, 'layer1.0.conv1.weight': broken}, f'{broken.numel()} of its'),
    ):
        torch.save(content, 'given.pth')
        with pytest.raises(SystemExit):
            tool(name, *arguments)
        assert words in capsys.readouterr().err
        assert not Path('hit').exists() and not Path('out.pth').exists()

    torch.save(dict(state_dict=state, when=date(2020, 1, 1)), 'given.pth')
    with pytest.raises(SystemExit):
        tool(name, *arguments)
    assert 'datetime.date' in capsys.readouterr().err
    if name == 'reallocate_weights':
        tool(name, *arguments, '--trust-checkpoint')
        assert Path('out.pth').exists()


SUPERNET = dict(
    supernet='stage', stage_choices={f'stage{i}': (1, 2) for i in range(1, 5)}
)


ARCH = dict(stage1=2, stage2=1, stage3=1, stage4=2)


@pytest.fixture
def supernet(tmp_path, shapes):
    """Writes config, checkpoint and architecture of a search on a few images.

    Returns the arguments of the tool that name them, and the config.
    """

    def write(backbone, norms=False, **loop):
        cfg = search_cfg(shapes, tmp_path, None, backbone, **loop)
        cfg.train_dataloader = loader_cfg(shapes, 'archtrain')
        cfg.train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=1)
        cfg.optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.01))
        cfg.custom_hooks = [dict(type='mmcr.ArchSamplingHook')]
        cfg.model_wrapper_cfg = dict(type='mmcr.ActivePathDDP')
        cfg.visualizer = dict(type='DetLocalVisualizer')
        cfg.model.rpn_head.anchor_generator.scales = [4]
        if norms:
            cfg.model.neck.norm_cfg = dict(type='BN')
        torch.manual_seed(0)
        detector = randomised(MODELS.build(copy.deepcopy(cfg.model)))
        torch.save(dict(state_dict=detector.state_dict()), tmp_path / 'supernet.pth')
        cfg.dump(tmp_path / 'config.py')
        (tmp_path / 'best_arch.json').write_text(json.dumps(dict(arch=ARCH)))
        return ['config.py', 'supernet.pth', 'best_arch.json', 'out.pth'], cfg

    return write


@pytest.mark.parametrize('share, norms', [('branch', False), ('prefix', True)])
def test_extract_subnet(tool, supernet, share, norms):
    arguments, cfg = supernet(dict(SUPERNET, share=share), norms)
    tool('extract_subnet', *arguments, '--calibration-images', 0)
    detector = MODELS.build(cfg.model)
    detector.load_state_dict(read_weights('supernet.pth'))
    arch = Arch(ARCH)
    alone = MODELS.build(Config.fromfile('out.py').model)
    inherit_weights(detector.backbone, alone.backbone, arch)
    for name in ('neck', 'rpn_head', 'roi_head'):
        getattr(alone, name).load_state_dict(getattr(detector, name).state_dict())
    assert dict_equal(read_weights('out.pth'), alone.state_dict())

    # by default the norms are re-estimated, and nothing else
    tool('extract_subnet', *arguments[:-1], 'own.pth')
    own, mixed = read_weights('own.pth'), read_weights('out.pth')
    moved = {name for name in own if not torch.equal(own[name], mixed[name])}
    parts = {name.split('.')[0] for name in moved}
    assert parts == ({'backbone', 'neck'} if norms else {'backbone'})
    statistics = 'running_mean', 'running_var', 'num_batches_tracked'
    assert moved == {name for name in own if name.endswith(statistics)}


def dict_equal(a, b):
    return a.keys() == b.keys() and equal(*([w[n] for n in sorted(w)] for w in (a, b)))


def test_what_is_extracted_is_what_was_scored(tool, supernet, shapes, tmp_path):
    """By the search, by mmdet's own test, by its inferencer."""
    arguments, cfg = supernet(dict(SUPERNET, share='prefix'), True, plain=True)
    with opened(Config.fromfile('config.py'), 'supernet.pth') as candidates:
        (trial,) = candidates.evaluate([Proposal(Complete(Arch(ARCH)))])
    assert trial.score > 0
    tool('extract_subnet', *arguments)
    test = Path(get_installed_path('mmdet')) / '.mim/tools/test.py'
    done = subprocess.run(
        [sys.executable, test, 'out.py', 'out.pth', '--work-dir', 'tested'],
        env={**os.environ, 'PYTHONPATH': str(ROOT)},
        check=False,
        capture_output=True,
        text=True,
    )
    assert not done.returncode, done.stderr
    (written,) = Path('tested').glob('*/*.json')
    metrics = json.loads(written.read_text())
    assert metrics['coco/bbox_mAP'] == pytest.approx(trial.score, abs=1e-6)

    inferencer = DetInferencer('out.py', 'out.pth', device='cpu', show_progress=False)
    assert tuple(inferencer.model.dataset_meta['classes']) == CLASSES
    image = next((shapes / 'archval').glob('*'))
    (found,) = inferencer(str(image))['predictions']
    assert len(found['scores']) == len(found['bboxes']) > 0


def test_extracted_with_the_data_of_the_detector(tool, supernet, tmp_path):
    arguments, _ = supernet(dict(SUPERNET, share='prefix'))
    own = write_config(
        tmp_path / 'mine.py',
        model=dict(type='FasterRCNN'),
        test_dataloader=dict(batch_size=3),
        custom_hooks=[dict(type='mmdet.NumClassCheckHook')],
        load_from='elsewhere.pth',
    )
    tool('extract_subnet', *arguments, '--detector', own, '--calibration-images', 1)
    written = Config.fromfile('out.py')
    assert written.test_dataloader == dict(batch_size=3)
    assert written.load_from is None and len(written.custom_hooks) == 1
    assert written.model.backbone.stage_blocks == (2, 1, 1, 2)


@pytest.mark.parametrize(
    'backbone, checkpoint, arch, words',
    [
        (SUPERNET, 'none.pth', '{}', 'no file none.pth'),
        (SUPERNET, None, 'no json', 'best_arch.json'),
        (SUPERNET, None, 'here.pth', 'Give the config of the search'),
        (SUPERNET, None, '{"arch": {"stage1": 9}}', 'stage1'),
        ({}, None, '{}', 'must be a supernet'),
        (dict(SUPERNET, stage_choices={}), None, '{"stage1": 1}', 'another share='),
        (dict(SUPERNET, share='prefix'), None, '{"stage1": 1}', 'another share='),
    ],
)
def test_extract_subnet_refuses(
    tool, supernet, tmp_path, capsys, backbone, checkpoint, arch, words
):
    given = checkpoint or write_checkpoint(tmp_path / 'given.pth', SUPERNET)
    supernet(backbone)
    if arch == 'here.pth':  # no search
        write_config(tmp_path / 'config.py', model=detector_cfg(backbone))
    else:
        (tmp_path / 'best_arch.json').write_text(arch)
    with pytest.raises(SystemExit):
        tool('extract_subnet', 'config.py', given, 'best_arch.json', 'out.pth')
    assert words in capsys.readouterr().err
    assert not list(tmp_path.glob('*out.pth*'))
