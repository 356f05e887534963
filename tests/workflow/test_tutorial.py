"""The tutorial's config is understood, and its commands take what is printed."""

import re
import runpy
import shlex
import sys
from functools import partialmethod
from importlib.util import find_spec

import pytest
from in_process import in_this_process
from scripts import ROOT
from tiny import IOU_THRESHOLDS

from mmcr.data import write_shapes
from mmcr.data.checks import check_config
from mmcr.engine.launch import read_config
from mmcr.scoring import UnroundedCocoMetric
from mmcr.workflow.baseline import understand
from mmcr.workflow.steps import StepRunner

TEXT = (ROOT / 'docs/tutorial.md').read_text()
SHELL = '\n'.join(re.findall(r'```sh\n(.*?)```', TEXT, re.S)).replace('\\\n', ' ')
COMMANDS = re.findall(r'^python (-c "[^"]*"|tools/.*)$', SHELL, re.M)
(CONFIG,) = re.findall(r'```python\n(.*?)```', TEXT, re.S)
# one epoch each, which leaves networks sure of nothing
SMALL = """
train_cfg = dict(max_epochs=1, val_interval=1)
model = dict(test_cfg=dict(score_thr=0.0))
reallocation = dict(archval=8, jobs=1, supernet=dict(train_cfg=train_cfg))
"""
pytestmark = pytest.mark.usefixtures('quiet_mmdet')


@pytest.mark.parametrize('command', [c for c in COMMANDS if c[0] != '-'])
def test_commands(command, monkeypatch):
    monkeypatch.chdir(ROOT)
    tool, *arguments = shlex.split(command)
    monkeypatch.setattr(sys, 'argv', [tool, *arguments])
    understood = str(vars(runpy.run_path(tool, run_name='tool')['parse_args']()))
    values = [text for text in arguments if not text.startswith('--')]
    assert values and all(value in understood for value in values)


def test_the_config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'mine.py').write_text(CONFIG)
    for split, count in (('train', 8), ('test', 4)):
        write_shapes(tmp_path / 'data/mine', count, (128, 128), split=split)
    cfg = read_config('mine.py')
    assert "'data/mine/train.json': 8 images" in check_config(cfg)
    assert understand(cfg).stage_blocks == (3, 4, 23, 3)


@pytest.mark.slow
def test_from_beginning_to_end(tmp_path, monkeypatch):
    """All commands in their order, on fewer images and with less training."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(StepRunner, '_call', in_this_process)
    loose = partialmethod(UnroundedCocoMetric.__init__, iou_thrs=IOU_THRESHOLDS)
    monkeypatch.setattr(UnroundedCocoMetric, '__init__', loose)
    (tmp_path / 'mine.py').write_text(CONFIG + SMALL)
    result = tmp_path / 'work_dirs/mine/result'
    exports = all(map(find_spec, ('onnxscript', 'onnxruntime')))
    for command in COMMANDS:
        command = command.replace('--train 1000', '--train 32')
        command = command.replace('--test 500', '--test 8')
        if result.exists() and not (result / 'mine_cr.py').exists():
            command = command.replace('mine_cr.py', 'mine.py')  # as the page says
        tool, *arguments = shlex.split(command)
        monkeypatch.setattr(sys, 'argv', [tool, *arguments])
        if tool == '-c':
            exec(*arguments, {})
        elif exports or 'export' not in tool:
            runpy.run_path(str(ROOT / tool), run_name='__main__')
    assert (result / 'comparison.md').is_file()
    assert len(list(tmp_path.glob('shown/vis/*'))) == 8
    assert (result / 'best.onnx.json').exists() == exports
