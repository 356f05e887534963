"""The tutorial's config is understood, and its commands take what is printed."""

import re
import runpy
import shlex
import sys

import pytest
from scripts import ROOT

from mmcr.data import write_shapes
from mmcr.data.checks import check_config
from mmcr.engine.launch import read_config
from mmcr.workflow.baseline import understand

TEXT = (ROOT / 'docs/tutorial.md').read_text()
SHELL = '\n'.join(re.findall(r'```sh\n(.*?)```', TEXT, re.S)).replace('\\\n', ' ')
COMMANDS = re.findall(r'^python (tools/.*)$', SHELL, re.M)
pytestmark = pytest.mark.usefixtures('quiet_mmdet')


@pytest.mark.parametrize('command', COMMANDS)
def test_commands(command, monkeypatch):
    monkeypatch.chdir(ROOT)
    tool, *arguments = shlex.split(command)
    monkeypatch.setattr(sys, 'argv', [tool, *arguments])
    understood = str(vars(runpy.run_path(tool, run_name='tool')['parse_args']()))
    values = [text for text in arguments if not text.startswith('--')]
    assert values and all(value in understood for value in values)


def test_the_config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r'```python\n(.*?)```', TEXT, re.S)
    (tmp_path / 'mine.py').write_text(block)
    for split, count in (('train', 8), ('test', 4)):
        write_shapes(tmp_path / 'data/mine', count, (128, 128), split=split)
    cfg = read_config('mine.py')
    assert "'data/mine/train.json': 8 images" in check_config(cfg)
    assert understand(cfg).stage_blocks == (3, 4, 23, 3)
