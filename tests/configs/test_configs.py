"""Every config of the tree reads, builds, runs, and says what the paper says."""

from ast import literal_eval
from fnmatch import fnmatch
from functools import cache
from math import isfinite

import pytest
import torch
from config_files import CONFIGS, LEAVES, is_of_search, on_meta, read, slow_if
from mmdet.registry import MODELS
from mmdet.testing import demo_mm_inputs
from mmengine.config import Config, ConfigDict
from mmengine.optim import build_optim_wrapper
from nets import equal

from mmcr.engine.export import arch_fragment
from mmcr.space import (
    PUBLISHED,
    Arch,
    Budget,
    mobilenetv2_stage_space,
    resnet_stage_space,
    stage_arch,
)

pytestmark = pytest.mark.usefixtures('quiet_mmdet')

HEAVY = ('*101*', '*x50*', 'nas_fpn/*', 'pascal_voc/*')
# CR-NAS, Sec. 4.1: epochs, milestones, the longest and the shortest side of an
# image, learning rate of a batch of 16. RetinaNet is not the paper's: mmdet's recipe.
RECIPES = {
    'crnas/*': (25, [16, 22], (1333, 800), 0.02),
    'faster_rcnn/*_1x_coco.py': (13, [8, 11], (1333, 800), 0.02),
    'faster_rcnn/*_2x_coco.py': (25, [16, 22], (1333, 800), 0.02),
    'nas_fpn/*_1x_coco.py': (13, [8, 11], (1333, 800), 0.02),
    'mask_rcnn/*_1x_coco.py': (13, [8, 11], (1333, 800), 0.02),
    'cascade_rcnn/*_20e_coco.py': (20, [16, 19], (1333, 800), 0.02),
    'pascal_voc/*_18e_voc0712.py': (18, [15, 17], (1000, 600), 0.02),
    'retinanet/*_1x_coco.py': (12, [8, 11], (1333, 800), 0.01),
}
# of stage searches with the paper's budgets
MEMBERS = dict(mobilenetv2=43, r18=9, r50=153, r101=374, x50=153, x101=374)


def with_few_proposals(cfg):
    """The config with numbers of boxes that suit small images."""
    few = dict(nms_pre=64, max_per_img=16, num=16)
    for key, value in cfg.items():
        if key in few:
            cfg[key] = few[key]
        for part in value if isinstance(value, list) else [value]:
            if isinstance(part, dict):
                with_few_proposals(part)
    return cfg


@cache  # configs that differ in schedule alone share it
def run_detector(model_cfg: str, optim_wrapper: str):
    """Builds, predicts and trains for a step; returns the outcome of each."""
    torch.manual_seed(0)
    model_cfg = ConfigDict(literal_eval(model_cfg))
    for part in ('train_cfg', 'test_cfg'):
        with_few_proposals(model_cfg[part])
    model = MODELS.build(model_cfg)
    data = demo_mm_inputs(
        2, [[3, 64, 64]] * 2, num_items=[2, 2], num_classes=6, with_mask=True
    )
    model.eval()
    with torch.no_grad():
        found = model.test_step(data)
        outs = model.backbone(torch.zeros(1, 3, 64, 64))
    model.train()
    before = [weight.clone() for weight in model.backbone.parameters()]
    optimizer = build_optim_wrapper(model, ConfigDict(literal_eval(optim_wrapper)))
    losses = model.train_step(data, optimizer)
    facts = dict(
        channels=[out.shape[1] for out in outs],
        has_space=getattr(model.backbone, 'space', None) is not None,
        learned=not equal(before, model.backbone.parameters()),
    )
    return facts, found, {key: value.item() for key, value in losses.items()}


@pytest.mark.parametrize('name', slow_if(LEAVES, *HEAVY))
def test_builds_predicts_and_trains(name):
    cfg = read(name)
    facts, found, losses = run_detector(
        repr(cfg.model.to_dict()), repr(cfg.optim_wrapper.to_dict())
    )
    assert facts == dict(
        channels=list(cfg.model.neck.in_channels),
        has_space=is_of_search(name),
        learned=True,
    )
    assert [sample.img_id for sample in found] == [0, 1]
    for sample in found:
        assert torch.isfinite(sample.pred_instances.bboxes).all()
        assert ('masks' in sample.pred_instances) == ('mask' in name)
    assert 'loss' in losses and all(map(isfinite, losses.values()))


@pytest.mark.parametrize(
    'name', [n for n in LEAVES if not n.startswith(('detnas/', 'demo/'))]
)
def test_trains_by_the_paper(name):
    (recipe,) = (value for key, value in RECIPES.items() if fnmatch(name, key))
    epochs, milestones, scale, lr = recipe
    cfg = read(name)
    assert cfg.train_cfg.max_epochs == epochs
    warm_up, steps = cfg.param_scheduler
    assert warm_up.type == 'LinearLR' and warm_up.end == 500
    assert (steps.milestones, steps.gamma, steps.end) == (milestones, 0.1, epochs)
    optimizer = cfg.optim_wrapper.optimizer
    assert optimizer == dict(type='SGD', lr=lr, momentum=0.9, weight_decay=0.0001)
    assert cfg.auto_scale_lr.base_batch_size == 16  # 0.02 / 16 = 0.00125 an image
    assert cfg.train_dataloader.batch_size * 8 == cfg.auto_scale_lr.base_batch_size
    assert cfg.sync_bn == 'torch'
    assert cfg.model.backbone.norm_eval is False
    dataset = cfg.train_dataloader.dataset
    if 'voc0712' in name:
        assert dataset.times == 1  # an epoch sees every image once
        trained = dataset.dataset.datasets
        assert [each.ann_file for each in trained] == [
            f'VOC{year}/ImageSets/Main/trainval.txt' for year in (2007, 2012)
        ]
        tested = cfg.test_dataloader.dataset.ann_file
        assert tested == 'VOC2007/ImageSets/Main/test.txt'
        assert cfg.test_evaluator.type == 'VOCMetric'
        assert cfg.model.roi_head.bbox_head.num_classes == 20
        dataset = trained[0]
    for pipeline in (dataset.pipeline, cfg.test_dataloader.dataset.pipeline):
        resize = next(step for step in pipeline if step.type == 'Resize')
        assert (resize.scale, resize.keep_ratio) == (scale, True)


@pytest.mark.parametrize('name', [n for n in LEAVES if n.startswith('crnas/')])
def test_search_has_its_own_split(name):
    cfg = read(name)
    assert cfg.train_dataloader.dataset.ann_file.endswith('archtrain.json')
    for loader in (cfg.val_dataloader, cfg.test_dataloader):
        assert loader.dataset.ann_file.endswith('archval.json')
        assert loader.dataset.data_prefix.img == 'train2017/'
    sampling = cfg.custom_hooks[0]
    assert sampling.type == 'mmcr.ArchSamplingHook'
    assert sampling.sampler.type == 'mmcr.StrictlyFairSampler'
    assert cfg.model.backbone.share == 'prefix'
    assert cfg.model_wrapper_cfg.type == 'mmcr.ActivePathDDP'


def keys_and_shapes(backbone):
    return {key: value.shape for key, value in on_meta(backbone).state_dict().items()}


@pytest.mark.parametrize('kind', ['stage', 'op'])
@pytest.mark.parametrize('key', MEMBERS)
def test_a_search_finds_networks_of_full_width(kind, key):
    """Supernets are half as wide; what they find is as wide as what is published."""
    cfg = read(f'crnas/{kind}_search_{key}.py')
    backbone = cfg.model.backbone
    widths = backbone.get('base_channels'), backbone.get('widen_factor')
    assert widths == ((None, 0.5) if key == 'mobilenetv2' else (32, None))
    supernet = on_meta(backbone)
    if kind == 'stage':
        published, arch = 'baseline', stage_arch(PUBLISHED[key].baseline)
    else:
        published = 'stage-cr'
        arch = Arch({choice.name: 1 for choice in supernet.space.choices})
    found = {**supernet.arch_cfg(arch), **cfg.test_cfg.final_backbone}
    expected = read(f'_base_/archs/{key}_{published}.py').cr_backbone
    del expected['_delete_']
    assert keys_and_shapes(found) == keys_and_shapes(expected)


@pytest.mark.parametrize('key', MEMBERS)
def test_a_stage_search_has_as_many_candidates_as_the_papers(key):
    cfg = read(f'crnas/stage_search_{key}.py')
    space = on_meta(cfg.model.backbone).space
    assert len(space.under(Budget.exactly(cfg.test_cfg.budget))) == MEMBERS[key]
    supernet = read(f'crnas/supernet_{key.replace("101", "50")}.py')
    assert supernet.model == cfg.model  # one serves both budgets
    for blocks in supernet.val_cfg.archs.values():
        space.validate(stage_arch(blocks))


@pytest.mark.parametrize(
    'key, searched',
    [('r18', resnet_stage_space(8)), ('mobilenetv2', mobilenetv2_stage_space(16))],
)
def test_a_supernet_of_one_budget_has_the_reachable_choices(key, searched):
    space = on_meta(read(f'crnas/supernet_{key}.py').model.backbone).space
    assert space.choices == searched.reachable()


@pytest.mark.parametrize('key', PUBLISHED)
def test_published_fragments(key):
    published = PUBLISHED[key]
    if key == 'mobilenetv2':
        network = dict(type='mmcr.CRMobileNetV2')
        options = dict(out_indices=(1, 2, 4, 7))
    elif key.startswith('x'):
        network = dict(type='mmcr.CRResNeXt', depth=published.depth)
        options = dict(groups=32, base_width=4)
    else:
        network, options = dict(type='mmcr.CRResNet', depth=published.depth), {}
    for kind, blocks, dilations in (
        ('baseline', published.baseline, None),
        ('stage-cr', published.stage_cr, None),
        ('full-cr', published.stage_cr, published.dilations),
    ):
        path = CONFIGS / f'_base_/archs/{key}_{kind}.py'
        if kind == 'full-cr' and dilations is None:
            assert not path.exists()
            continue
        cfg = dict(network, stage_blocks=blocks)
        if dilations:
            cfg['dilations'] = dilations
        cfg.update(options, norm_eval=False)
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
    backbone = on_meta(Config.fromfile(leaf).model).backbone
    assert type(backbone).__name__ == 'CRResNet'
    assert backbone.stage_blocks == (1, 3, 5, 7)
