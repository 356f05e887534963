"""Configs, checkpoints and journals of users keep working when the house is rebuilt."""

import shutil
from pathlib import Path

import pytest
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.runner import Runner
from tiny import write_data

pytestmark = pytest.mark.usefixtures('quiet_mmdet')
BEFORE = Path(__file__).parent / 'made_at_f20455e'


@pytest.fixture
def before(tmp_path, monkeypatch):
    shutil.copytree(BEFORE, tmp_path / 'before')
    monkeypatch.chdir(tmp_path / 'before')
    write_data(Path('shapes'))  # the paths in the journal are relative to here
    return tmp_path / 'before'


def test_a_journal_goes_on_and_its_config_and_checkpoint_load(before):
    journal, found = (before / 'search' / n for n in ('trials.jsonl', 'best_arch.py'))
    lines = journal.read_text().splitlines(keepends=True)
    best = Config.fromfile(found).cr_backbone
    found.unlink()
    journal.write_text(''.join(lines[:-2]))  # the last two are to be scored again
    Runner.from_cfg(Config.fromfile('search.py')).test()
    again = journal.read_text().splitlines(keepends=True)
    assert again[: len(lines) - 2] == lines[:-2] and len(again) == len(lines)
    assert Config.fromfile(found).cr_backbone == best


def test_a_training_is_resumed(before):
    cfg = Config.fromfile('train.py')
    cfg.train_cfg.max_iters = 3
    cfg.load_from, cfg.resume = 'supernet.pth', True
    runner = Runner.from_cfg(cfg)
    runner.train()
    assert runner.iter == 3


def test_a_fragment_is_a_backbone(before):
    (before / 'leaf.py').write_text(
        "_base_ = ['mmdet::retinanet/retinanet_r18_fpn_1x_coco.py', "
        "'search/best_arch.py']\n"
        'model = dict(\n'
        '    backbone=_base_.cr_backbone,\n'
        '    neck=dict(in_channels=_base_.cr_neck_in_channels))\n'
    )
    model = MODELS.build(Config.fromfile('leaf.py').model)
    assert type(model.backbone).__name__ == 'CRResNet'
