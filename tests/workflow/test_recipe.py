"""A detector's config in, the configs of a reallocation out."""

from importlib.util import find_spec

import pytest
import torch
from config_files import read
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.model import PretrainedInit
from torch import nn

from mmcr.cost.budget import budget_space
from mmcr.errors import UserError
from mmcr.space import Budget
from mmcr.workflow import recipe
from mmcr.workflow.baseline import build, understand
from mmcr.workflow.datasets import SearchData
from mmcr.workflow.recipe import Options

pytestmark = pytest.mark.usefixtures('quiet_mmdet')

DECIDES = (
    *('model', 'train_cfg', 'val_cfg', 'test_cfg', 'optim_wrapper', 'param_scheduler'),
    *('train_dataloader', 'val_dataloader', 'test_dataloader', 'val_evaluator'),
    *('test_evaluator', 'default_hooks', 'custom_hooks', 'auto_scale_lr', 'sync_bn'),
    *('model_wrapper_cfg', 'default_scope', 'load_from', 'resume', 'log_processor'),
)
HOSTS = (
    'faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py',
    'mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py',
    'cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco.py',
    'retinanet/retinanet_r18_fpn_1x_coco.py',
    'fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py',
    'atss/atss_r50_fpn_1x_coco.py',
    'gfl/gfl_r50_fpn_1x_coco.py',
    'tood/tood_r50_fpn_1x_coco.py',
    'faster_rcnn/faster-rcnn_x101-32x4d_fpn_1x_coco.py',
    'res2net/faster-rcnn_res2net-101_fpn_2x_coco.py',
    'swin/retinanet_swin-t-p4-w7_fpn_1x_coco.py',
    pytest.param(
        'convnext/mask-rcnn_convnext-t-p4-w7_fpn_amp-ms-crop-3x_coco.py',
        marks=pytest.mark.skipif(not find_spec('mmpretrain'), reason='is optional'),
    ),
)


def mmdets(name):
    return Config.fromfile(recipe_path(name))


def recipe_path(name):
    from mmengine.utils import get_installed_path

    return f'{get_installed_path("mmdet")}/.mim/configs/{name}'


def plainly(value):
    """Without what inheritance leaves behind."""
    if isinstance(value, dict):
        return {k: plainly(v) for k, v in value.items() if k != '_scope_'}
    if isinstance(value, list | tuple):
        return [plainly(entry) for entry in value]
    return value


def what_decides(cfg):
    return plainly({key: cfg.get(key) for key in DECIDES})


def stage_space(baseline, options):
    draft, final = recipe.stage_draft(baseline, options)
    cost = draft.space.cost_of(draft.space.member(baseline.stage_blocks))
    return draft.space.under(Budget.exactly(cost)), final, cost


@pytest.mark.parametrize('net', ['r50', 'r18', 'mobilenetv2', 'x50'])
def test_the_papers_recipe_is_that_of_configs_crnas(net):
    """For the paper's detector and data; its supernets are trained for 25 epochs."""
    detector = read(f'faster_rcnn/faster-rcnn_{net}_fpn_1x_coco.py')
    longer = read('faster_rcnn/faster-rcnn_r50_fpn_2x_coco.py')
    detector.update(train_cfg=longer.train_cfg, param_scheduler=longer.param_scheduler)
    baseline, options = understand(detector), Options()
    papers = read(f'crnas/supernet_{net}.py')
    if net == 'mobilenetv2':
        del papers.model.backbone['out_indices']  # mmdet's default
    data = SearchData(
        *(papers.train_dataloader, papers.val_dataloader, {}, papers.val_evaluator),
        *((), '', 5000),
    )
    space, _, cost = stage_space(baseline, options)
    supernet = recipe.supernet(baseline, data, options, 'stage', space)
    assert what_decides(supernet) == what_decides(papers)

    exhaustive = dict(type='mmcr.ExhaustiveSearcher')
    search = recipe.search(supernet, baseline, options, exhaustive, cost)
    papers = read(f'crnas/stage_search_{net}.py')
    assert plainly(search.test_cfg) == plainly(papers.test_cfg)

    papers = read(f'crnas/op_search_{net}.py')
    operation = recipe.supernet(baseline, data, options, 'operation')
    blocks = papers.model.backbone.stage_blocks
    operation.model.backbone.stage_blocks = blocks  # what the stage search has found
    papers.model.backbone.pop('out_indices', None)
    papers.model.backbone.pop('stage_choices', None)
    greedy = dict(type='mmcr.GreedySearcher', k=3)
    search = recipe.search(operation, baseline, options, greedy)
    assert what_decides(search) == what_decides(papers)

    papers = understand(read(f'faster_rcnn/faster-rcnn_cr-{net}_fpn_1x_coco.py'))
    changed = {
        key: value
        for key, value in papers.arguments.items()
        if key in ('stage_blocks', 'dilations')
    }
    found = understand(recipe.network(baseline, changed, options))
    assert found.arguments == papers.arguments and found.start == papers.start
    assert found.cfg.model.neck == papers.cfg.model.neck


@pytest.mark.parametrize('name', HOSTS)
def test_any_detector_of_mmdets(name):
    """Supernet and found network are built; their necks take what backbones give."""
    cfg = mmdets(name)
    own = dict(type='CheckInvalidLossHook', interval=50)
    cfg.custom_hooks = [own]
    baseline, options = understand(cfg), Options()
    space, final, cost = stage_space(baseline, options)
    supernet = recipe.supernet(baseline, None, options, 'stage', space)
    assert own in supernet.custom_hooks
    assert supernet.model.backbone.type == baseline.type
    assert {'init_cfg', 'frozen_stages'}.isdisjoint(supernet.model.backbone)
    found = recipe.network(baseline, dict(stage_blocks=(3, 3, 5, 5)), options)
    backbone = found.model.backbone
    assert backbone.init_cfg.type == 'mmcr.ReallocatedInit'
    assert backbone.init_cfg.checkpoint == cfg.model.backbone.init_cfg.checkpoint
    assert backbone.get('frozen_stages', 0) == 0
    for model in (supernet.model, found.model):
        with torch.device('meta'):
            detector = MODELS.build(model)
            features = detector.backbone(torch.zeros(1, 3, 64, 64))
            assert len(detector.neck(features)) == 5
    assert found.model.neck == cfg.model.neck
    net = build(supernet.model.backbone)
    kept = budget_space(
        net, recipe.final_backbone(baseline, supernet.model.backbone), cost
    )
    assert baseline.stage_blocks in {tuple(arch.values()) for arch in kept}
    full = build({**net.arch_cfg(next(iter(space))), **final})
    assert full.out_channels == baseline.network.out_channels


def test_what_a_detector_is_written_as_does_not_matter():
    """Lazy configs with classes, and no scope."""
    cfg = read('demo/shapes.py')
    from mmdet.models import ResNetV1d

    cfg.model.backbone.type = ResNetV1d
    cfg.default_scope = None
    baseline = understand(cfg)
    assert baseline.type == 'mmcr.CRResNetV1d'
    assert 'ResNetV1d' in baseline.cfg.model.backbone.type


def supernet_of(cfg):
    baseline, options = understand(cfg), Options(width=1.0)
    space, *_ = stage_space(baseline, options)
    return recipe.supernet(baseline, None, options, 'stage', space)


def test_what_waits_for_the_detectors_metrics_waits_for_a_path():
    cfg = read('demo/shapes.py')
    plateau = dict(type='ReduceOnPlateauLR', monitor='coco/bbox_mAP', rule='greater')
    for schedulers in plateau, [plateau]:
        cfg.param_scheduler = schedulers
        found = supernet_of(cfg).param_scheduler
        found = found if isinstance(found, dict) else found[0]
        assert found['monitor'] == 'archval/baseline/bbox_mAP'


def test_steps_save_in_their_own_folders():
    cfg = read('demo/shapes.py')
    cfg.default_hooks = dict(
        checkpoint=dict(type='CheckpointHook', out_dir='elsewhere', save_last=False),
        logger=None,
    )
    hooks = supernet_of(cfg).default_hooks
    assert hooks == dict(checkpoint=dict(type='CheckpointHook', save_last=True))
    assert cfg.default_hooks.checkpoint.out_dir == 'elsewhere'


@pytest.mark.parametrize(
    'start',
    [
        dict(pretrained='torchvision://resnet50'),
        dict(
            init_cfg=[
                dict(type='Kaiming', layer='Conv2d'),
                dict(type='Pretrained', checkpoint='torchvision://resnet50'),
            ]
        ),
    ],
)
def test_public_weights_in_any_form_start_what_is_found(start):
    cfg = read('demo/shapes.py')
    cfg.model.backbone.pop('init_cfg', None)
    cfg.model.backbone.update(start)
    backbone = recipe.network(understand(cfg), dict(), Options()).model.backbone
    wanted = dict(type='mmcr.ReallocatedInit', checkpoint='torchvision://resnet50')
    assert backbone.init_cfg == wanted and 'pretrained' not in backbone


def test_what_a_user_may_change():
    options = Options(
        width=1.0,
        backbone=dict(share='branch'),
        supernet=dict(train_cfg=dict(max_epochs=3), optim_wrapper=dict(clip_grad=None)),
        search=dict(calibration_images=7),
        amp=True,
    )
    cfg = read('demo/shapes.py')
    cfg.load_from = 'detector.pth'
    baseline = understand(cfg)
    assert baseline.checkpoint == 'detector.pth'
    space, final, cost = stage_space(baseline, options)
    assert final == {}
    supernet = recipe.supernet(baseline, None, options, 'stage', space)
    assert supernet.model.backbone.share == 'branch'
    assert supernet.model.neck == cfg.model.neck
    assert supernet.train_cfg.max_epochs == 3
    assert supernet.optim_wrapper.type == 'AmpOptimWrapper'
    assert supernet.load_from is None
    searcher = dict(type='mmcr.ExhaustiveSearcher')
    search = recipe.search(supernet, baseline, options, searcher, cost)
    assert search.test_cfg.calibration_images == 7
    assert 'final_backbone' not in search.test_cfg


def test_own_numbers_of_blocks_are_a_choice():
    cfg = read('demo/shapes.py')
    cfg.model.backbone.update(type='mmcr.CRResNet', stage_blocks=(2, 2, 8, 2))
    baseline = understand(cfg)
    assert recipe.stage_choices(baseline, Options())['stage3'] == (
        2,
        3,
        5,
        6,
        8,
        9,
        11,
        14,
        17,
        20,
        23,
    )


def test_own_choices():
    baseline = understand(read('demo/shapes.py'))
    given = dict(stage_choices=dict(stage1=(1, 2)))
    options = Options(width=1.0, backbone=given)
    space, _, _ = stage_space(baseline, options)
    assert {arch['stage1'] for arch in space} == {1, 2}
    supernet = recipe.supernet(baseline, None, options, 'stage', space)
    built = build(supernet.model.backbone).space
    assert built.choices == space.reachable()
    lacking = Options(width=1.0, backbone=dict(stage_choices=dict(stage1=(1, 3))))
    with pytest.raises(UserError, match=r'those of stage1 are \(1, 3\). Add 2'):
        recipe.stage_draft(baseline, lacking)


@pytest.mark.parametrize(
    'backbone, words',
    [
        (None, 'backbone as model.backbone'),
        (dict(type='Swin'), 'one of mmdet.*MobileNetV2.*ResNet.*has Swin'),
        (dict(type='mmpretrain.ResNet', depth=18), 'has mmpretrain.ResNet'),
        (dict(type='CRResNet', depth=18, supernet='stage'), "supernet='stage'"),
        (dict(type='ResNet', depth=18, no_such=1), 'takes no no_such'),
        (dict(type='ResNet', depth=19), 'depth must be one of'),
    ],
)
def test_refuses(backbone, words):
    cfg = read('demo/shapes.py')
    cfg.model.backbone = backbone
    with pytest.raises(UserError, match=words):
        understand(cfg)


def test_widths_that_cannot_be():
    cfg = read('demo/shapes.py')
    cfg.model.neck.in_channels = [1, 2, 3, 4]
    baseline = understand(cfg)
    with pytest.raises(UserError, match=r'--width 1'):
        recipe.supernet(baseline, None, Options(), 'operation')
    with pytest.raises(UserError, match='even number of channels.* 16'):
        recipe.narrowed(baseline, 0.3)
    regnet = understand(mmdets('regnet/faster-rcnn_regnetx-3.2GF_fpn_1x_coco.py'))
    with pytest.raises(UserError, match='CRRegNet is not. Give --width 1'):
        recipe.narrowed(regnet, 0.5)
    assert recipe.narrowed(regnet, 1) == dict(arch='regnetx_3.2gf')


@pytest.mark.parametrize(
    'name, taken',
    [
        ('yolo/yolov3_mobilenetv2_8xb24-ms-416-300e_coco.py', [160, 48, 16]),
        ('yolof/yolof_r50-c5_8xb8-1x_coco.py', 1024),
        # its neck's outputs begin with the backbone's
        ('ssd/ssdlite_mobilenetv2-scratch_8xb24-600e_coco.py', None),
    ],
)
def test_necks_of_other_forms(name, taken):
    baseline = understand(mmdets(name))
    if taken is None:
        with pytest.raises(UserError, match='Give --width 1'):
            recipe.supernet(baseline, None, Options(), 'operation')
    else:
        supernet = recipe.supernet(baseline, None, Options(), 'operation')
        assert supernet.model.neck.in_channels == taken


def test_dilations_of_the_detectors_own_are_refused():
    dc5 = understand(mmdets('faster_rcnn/faster-rcnn_r50-caffe-dc5_1x_coco.py'))
    with pytest.raises(UserError, match=r'leave them at 1.*\(1, 1, 1, 2\)'):
        recipe.supernet(dc5, None, Options(width=1), 'operation')


@pytest.mark.parametrize(
    'given, words',
    [
        (dict(width=0), 'width must be above 0'),
        (dict(width=float('nan')), 'width must be a finite number'),
        (dict(search=3), 'search of a reallocation must be a dict'),
    ],
)
def test_options_that_cannot_be(given, words):
    with pytest.raises(UserError, match=words):
        Options(**given)


def test_other_blocks_have_no_dilations_of_the_detectors_blocks():
    cfg = read('demo/shapes.py')
    by_block = ((1, 2), (1, 1), (3, 1), (1, 1))
    cfg.model.backbone = dict(type='mmcr.CRResNet', depth=18, dilations=by_block)
    baseline = understand(cfg)
    own = recipe.network(baseline, {}, Options()).model.backbone
    other = recipe.network(baseline, dict(stage_blocks=(1, 2, 3, 2)), Options())
    assert own.dilations == by_block and 'dilations' not in other.model.backbone
    cfg.model.backbone.update(strides=(1, 2, 2, 1), dilations=(1, (1, 2), 1, 2))
    mixed = recipe.network(understand(cfg), dict(stage_blocks=(1, 2, 3, 2)), Options())
    assert mixed.model.backbone.dilations == (1, 1, 1, 2)
    full = dict(stage_blocks=(1, 1, 1, 1), dilations=((1,), (2,), (1,), (1,)))
    backbone = recipe.network(baseline, full, Options()).model.backbone
    assert build(dict(backbone)).stage_blocks == (1, 1, 1, 1)


@pytest.mark.parametrize(
    'backbone',
    [
        dict(type='ResNeXt', depth=50),
        dict(type='ResNeXt', depth=50, groups=32, base_channels=32),
        dict(type='ResNeXt', depth=50, groups=32, base_width=4),
        dict(type='Res2Net', depth=50, base_channels=32),
        dict(type='Res2Net', depth=50),
        dict(type='CSPDarknet', norm_cfg=dict(type='BN', requires_grad=False)),
    ],
)
def test_what_is_not_said_is_as_in_mmdets_network(backbone):
    cfg = read('demo/shapes.py')
    cfg.model.backbone = backbone
    with torch.device('meta'):
        theirs = MODELS.build(dict(backbone))
        ours = build(recipe.network(understand(cfg), {}, Options()).model.backbone)
    shapes = ({k: v.shape for k, v in n.state_dict().items()} for n in (theirs, ours))
    assert next(shapes) == next(shapes)
    norms = (
        [(m.eps, m.momentum) for m in n.modules() if isinstance(m, nn.BatchNorm2d)]
        for n in (theirs, ours)
    )
    assert next(norms) == next(norms)


def test_public_weights_by_their_class():
    cfg = read('demo/shapes.py')
    cfg.model.backbone.init_cfg = dict(type=PretrainedInit, checkpoint='a.pth')
    start = recipe.network(understand(cfg), {}, Options()).model.backbone.init_cfg
    assert start == dict(type='mmcr.ReallocatedInit', checkpoint='a.pth')


def test_detnas_has_the_strides_of_the_detector():
    c4 = understand(mmdets('rpn/rpn_r50-caffe-c4_1x_coco.py'))
    supernet, plain = recipe.detnas_supernet(c4, None, Options())
    for backbone in (supernet.model.backbone, plain.model.backbone):
        assert build(dict(backbone)).out_strides == c4.network.out_strides == (16,)
    dilated = read('demo/shapes.py')
    dilated.model.backbone.update(strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2))
    with pytest.raises(UserError, match='4, 8, 16, 32.* have .4, 8, 16, 16'):
        recipe.detnas_supernet(understand(dilated), None, Options())
