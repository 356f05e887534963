"""The commands that turn one checkpoint into another."""

import copy
import runpy
import sys
from datetime import date
from pathlib import Path

import pytest
import torch
from baselines import R18, R50, outputs, save_classifier, source
from mmdet.registry import MODELS
from mmengine.config import Config
from nets import equal, in_mode
from tiny import detector_cfg, write_checkpoint

from mmcr.models import inherit_weights
from mmcr.models.weights.checkpoint import ONLY_WEIGHTS, read_weights
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
    content = dict(cr_backbone=dict(cfg, _delete_=True))
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
    assert 'layer4           3     4       3         1         0' in said
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
def test_no_command_and_no_nan(tool, tmp_path, capsys, monkeypatch, name):
    state = MODELS.build(dict(R18, type='mmcr.CRResNet')).state_dict()
    config = write_config(tmp_path / 'arch.py', cr_backbone=dict(R18))
    arguments = ['given.pth', config, 'out.pth']
    if name == 'extract_subnet':
        (tmp_path / 'best_arch.json').write_text('{"stage1": 2}')
        config = write_config(config, model=detector_cfg(dict(SUPERNET)))
        arguments = [config, 'given.pth', 'best_arch.json', 'out.pth']
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


@pytest.mark.parametrize('share', ('branch', 'prefix'))
def test_extract_subnet(tool, tmp_path, share):
    backbone = dict(SUPERNET, share=share)
    checkpoint = write_checkpoint(tmp_path / 'supernet.pth', backbone)
    config = write_config(tmp_path / 'config.py', model=detector_cfg(backbone))
    (tmp_path / 'best_arch.json').write_text(
        '{"arch": {"stage1": 2, "stage2": 1, "stage3": 1, "stage4": 2}, "score": 0.5}'
    )
    tool('extract_subnet', config, checkpoint, 'best_arch.json', 'out.pth')

    detector = MODELS.build(detector_cfg(backbone))
    detector.load_state_dict(read_weights(checkpoint))
    supernet = detector.backbone
    arch = Arch(dict(stage1=2, stage2=1, stage3=1, stage4=2))
    fixed = MODELS.build(supernet.arch_cfg(arch))
    inherit_weights(supernet, fixed, arch)
    assert equal(read_weights('out.pth'), dict(fixed.state_dict()))


@pytest.mark.parametrize(
    'backbone, checkpoint, arch, words',
    [
        (SUPERNET, 'none.pth', '{}', 'no file none.pth'),
        (SUPERNET, None, 'no json', 'best_arch.json'),
        (SUPERNET, None, '{"arch": {"stage1": 9}}', 'stage1'),
        ({}, None, '{}', 'must be a supernet'),
        (dict(SUPERNET, stage_choices={}), None, '{"stage1": 1}', 'another share='),
        (dict(SUPERNET, share='prefix'), None, '{"stage1": 1}', 'another share='),
    ],
)
def test_extract_subnet_refuses(
    tool, tmp_path, capsys, backbone, checkpoint, arch, words
):
    given = checkpoint or write_checkpoint(tmp_path / 'supernet.pth', SUPERNET)
    config = write_config(tmp_path / 'config.py', model=detector_cfg(backbone))
    (tmp_path / 'best_arch.json').write_text(arch)
    with pytest.raises(SystemExit):
        tool('extract_subnet', config, given, 'best_arch.json', 'out.pth')
    assert words in capsys.readouterr().err
    assert not list(tmp_path.glob('*out.pth*'))
