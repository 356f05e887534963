"""Every config of the tree reads, builds, and says what the paper's recipe says."""

import os
from pathlib import Path

import pytest
from mmdet.registry import MODELS
from mmengine.config import Config

from mmcr.engine.export import arch_fragment
from mmcr.space import PUBLISHED, resnet_stage_space

CONFIGS = Path(__file__).parents[1] / 'configs'
LEAVES = sorted(
    path.relative_to(CONFIGS).as_posix()
    for path in CONFIGS.glob('*/*.py')
    if not path.parent.name.startswith('_')
)


def read(name: str) -> Config:
    return Config.fromfile(CONFIGS / name)


@pytest.mark.parametrize('name', LEAVES)
def test_builds(name):
    cfg = read(name)
    model = MODELS.build(cfg.model)
    assert list(cfg.model.neck.in_channels) == list(model.backbone.out_channels)
    is_search_step = name.startswith(('crnas/', 'demo/'))
    assert (model.backbone.space is not None) == is_search_step


@pytest.mark.parametrize('name', LEAVES)
def test_trains_by_the_paper(name):
    """CR-NAS, Sec. 4.1: 25 epochs (2x) or 13 (1x), lr 0.00125 an image, SyncBN."""
    if name.startswith('demo/'):
        pytest.skip('the demo has its own short schedule')
    cfg = read(name)
    epochs, milestones = (25, [16, 22]) if name.startswith('crnas') else (13, [8, 11])
    assert cfg.train_cfg.max_epochs == epochs
    warm_up, steps = cfg.param_scheduler
    assert warm_up.type == 'LinearLR' and warm_up.end == 500
    assert (steps.milestones, steps.gamma, steps.end) == (milestones, 0.1, epochs)
    optimizer = cfg.optim_wrapper.optimizer
    assert optimizer == dict(type='SGD', lr=0.02, momentum=0.9, weight_decay=0.0001)
    assert optimizer.lr == pytest.approx(0.00125 * cfg.auto_scale_lr.base_batch_size)
    assert cfg.train_dataloader.batch_size * 8 == cfg.auto_scale_lr.base_batch_size
    assert cfg.sync_bn == 'torch'
    assert cfg.model.backbone.norm_eval is False
    resize = next(
        step for step in cfg.train_dataloader.dataset.pipeline if step.type == 'Resize'
    )
    assert resize.scale == (1333, 800)


@pytest.mark.parametrize('name', [n for n in LEAVES if n.startswith('crnas/')])
def test_search_has_its_own_split(name):
    cfg = read(name)
    assert cfg.train_dataloader.dataset.ann_file.endswith('archtrain.json')
    for loader in (cfg.val_dataloader, cfg.test_dataloader):
        assert loader.dataset.ann_file.endswith('archval.json')
        assert loader.dataset.data_prefix.img == 'train2017/'
    assert cfg.model.backbone.base_channels == 32  # half of ResNet's widths


def test_one_supernet_serves_both_budgets():
    r50, r101 = read('crnas/stage_search_r50.py'), read('crnas/stage_search_r101.py')
    assert r50.model == r101.model
    assert (r50.test_cfg.budget, r101.test_cfg.budget) == (16, 33)


def test_r18_supernet_has_the_reachable_choices():
    choices = read('crnas/supernet_r18.py').model.backbone.stage_choices
    assert choices == {
        choice.name: choice.values for choice in resnet_stage_space(8).reachable()
    }


@pytest.mark.parametrize('key', ['r18', 'r50', 'r101'])
def test_published_fragments(key):
    published = PUBLISHED[key]
    for kind, blocks, dilations in (
        ('baseline', published.baseline, None),
        ('stage-cr', published.stage_cr, None),
        ('full-cr', published.stage_cr, published.dilations),
    ):
        path = CONFIGS / f'_base_/archs/{key}_{kind}.py'
        cfg = dict(type='mmcr.CRResNet', depth=published.depth, stage_blocks=blocks)
        if dilations:
            cfg['dilations'] = dilations
        cfg['norm_eval'] = False
        comment = path.read_text().splitlines()[0].removeprefix('# ')
        assert path.read_text() == arch_fragment(cfg, comment)


@pytest.mark.parametrize(
    'base',
    [
        'cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco.py',
        'mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py',
        'retinanet/retinanet_r50_fpn_1x_coco.py',
    ],
)
def test_fragment_in_any_detector(tmp_path, base):
    leaf = tmp_path / 'leaf.py'
    leaf.write_text(
        f"_base_ = ['mmdet::{base}', '{CONFIGS}/_base_/archs/r50_full-cr.py']\n"
        'model = dict(backbone=_base_.cr_backbone)\n'
    )
    model = MODELS.build(Config.fromfile(leaf).model)
    assert type(model.backbone).__name__ == 'CRResNet'
    assert model.backbone.stage_blocks == (1, 3, 5, 7)


def test_steps_follow_the_environment(monkeypatch, tmp_path):
    fragment = tmp_path / 'best_arch.py'
    fragment.write_text(
        "cr_backbone = dict(_delete_=True, type='mmcr.CRResNet', "
        'depth=18, stage_blocks=(3, 1, 2, 2))\n'
        'cr_neck_in_channels = [64, 128, 256, 512]\n'
    )
    monkeypatch.setitem(os.environ, 'CR_ARCH', str(fragment))
    monkeypatch.setitem(os.environ, 'CR_STEP', 'crnas/op_search_r18')
    backbone = read('demo/shapes.py').model.backbone
    assert backbone.supernet == 'operation'
    assert backbone.stage_blocks == (3, 1, 2, 2)
    monkeypatch.setitem(
        os.environ, 'CR_STEP', 'faster_rcnn/faster-rcnn_cr-r18_fpn_1x_coco'
    )
    final = read('demo/shapes.py')
    assert final.model.backbone.stage_blocks == (3, 1, 2, 2)
    assert final.train_dataloader.dataset.ann_file == 'train.json'
