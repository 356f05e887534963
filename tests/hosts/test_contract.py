"""What a host asks of a backbone that takes the place of its own."""

import pytest
import torch
from config_files import CONFIGS
from mmdet.registry import DATASETS, MODELS, TASK_UTILS, TRANSFORMS
from mmengine.config import Config, ConfigDict
from nets import some_archs
from tiny import loader_cfg

from mmcr.cost.complexity import measure
from mmcr.engine.launch import build_runner, build_trainer, read_config
from mmcr.errors import UserError
from mmcr.models.detector import check_levels, refitted
from mmcr.scoring.loaders import build_loader, calibration_cfg
from mmcr.search import Complete, Proposal

from .shrunk import candidates_of, host_cfg, mmdets

pytestmark = pytest.mark.usefixtures('quiet_mmdet')

RETINANET = 'retinanet/retinanet_r50_fpn_1x_coco'
RTMDET = 'rtmdet/rtmdet_tiny_8xb32-300e_coco'
CONDINST = 'condinst/condinst_r50_fpn_ms-poly-90k_coco_instance'
BEFORE, NOW = (8, 16, 32), (64, 128, 256)


@pytest.mark.parametrize(
    'model, fitted',
    [
        (dict(neck=dict(in_channels=[8, 16, 32])), [64, 128, 256]),
        (dict(neck=dict(in_channels=(32, 8))), (256, 64)),  # another order, a tuple
        (dict(neck=dict(in_channels=32)), 256),  # YOLOF's, of the last output
        (
            dict(neck=[dict(in_channels=[8, 16, 32]), dict(in_channels=8)]),
            [64, 128, 256],
        ),
        (dict(panoptic_head=dict(in_channels=[8, 16, 32])), [64, 128, 256]),
        (dict(neck=dict(in_channels=16)), None),
        (dict(neck=dict(in_channels=[8, 512])), None),
        (dict(bbox_head=dict(in_channels=7)), None),
        (dict(rpn_head=dict(in_channels=32), roi_head=dict(type='C4')), None),
    ],
)
def test_what_takes_the_outputs_is_fitted(model, fitted):
    if fitted is None:
        with pytest.raises(UserError, match=r'\[8, 16, 32\] channels before'):
            refitted(model, BEFORE, NOW)
        return
    found = refitted(model, BEFORE, NOW)
    taker = found.get('neck') or found['panoptic_head']
    first = taker[0] if isinstance(taker, list) else taker
    assert first['in_channels'] == fitted
    if isinstance(taker, list):
        assert taker[1] == model['neck'][1]
    assert refitted(model, BEFORE, BEFORE) == model
    with pytest.raises(UserError, match='3 now|now'):
        refitted(model, BEFORE, NOW[:2])


def with_fragment(tmp_path, host, backbone):
    leaf = tmp_path / 'leaf.py'
    leaf.write_text(
        f"_base_ = ['mmdet::{host}.py', '{CONFIGS}/_base_/archs/r18_full-cr.py']\n"
        f'model = dict(backbone={backbone}, '
        f'neck=dict(in_channels=_base_.cr_neck_in_channels))\n'
    )
    return Config.fromfile(leaf).model


@pytest.mark.parametrize('host', [RTMDET, 'yolox/yolox_s_8xb8-300e_coco'])
def test_strides_that_a_head_has_no_priors_for_are_refused(host, tmp_path):
    """A fragment in the place of a backbone that gives out strides 8 to 32."""
    model = with_fragment(tmp_path, host, '_base_.cr_backbone')
    with pytest.raises(UserError, match=r'strides \[8, 16, 32\].*out_indices|the neck'):
        check_levels(MODELS.build(model))
    backbone = 'dict(_base_.cr_backbone, out_indices=(1, 2, 3))'
    model = with_fragment(tmp_path, host, backbone)
    model.neck.in_channels = model.neck.in_channels[1:]
    check_levels(MODELS.build(model))


def test_strides_are_looked_at_when_a_run_begins(shapes, tmp_path):
    cfg = host_cfg(RETINANET, shapes, tmp_path)
    cfg.model.backbone.out_indices = (0, 1, 2)
    cfg.model.neck.update(in_channels=[8, 16, 32], start_level=0)
    with pytest.raises(UserError, match=r'priors for strides \[8, .*strides \[4, '):
        build_runner(cfg)
    cfg.model.neck.in_channels = [8, 16, 33]
    cfg.experiment_name += '2'
    with pytest.raises(UserError, match='neck must take .* 3 outputs.*in_channels'):
        build_runner(cfg)


def test_looking_at_strides_changes_nothing(shapes, tmp_path):
    cfg = host_cfg(RTMDET, shapes, tmp_path)
    model = MODELS.build(cfg.model).train()
    model.neck.eval()
    state = {k: v.clone() for k, v in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    check_levels(model)
    assert modes == [module.training for module in model.modules()]
    assert all(torch.equal(state[k], v) for k, v in model.state_dict().items())


def test_hooks_of_a_host_stay_beside_those_of_supernets(tmp_path):
    leaf = tmp_path / 'leaf.py'
    leaf.write_text(
        f"_base_ = ['mmdet::{RTMDET}.py', '{CONFIGS}/_base_/supernet_training.py']\n"
        'custom_hooks = [*_base_.custom_hooks, *_base_.supernet_hooks]\n'
    )
    kinds = [hook.type for hook in read_config(leaf).custom_hooks]
    assert kinds[:2] == [hook.type for hook in mmdets(RTMDET).custom_hooks]
    assert 'mmcr.ArchSamplingHook' in kinds[2:]


def lazily(value):
    """As in configs with classes in the place of names."""
    if isinstance(value, list | tuple):
        return type(value)(map(lazily, value))
    if not isinstance(value, dict):
        return value
    found = {key: lazily(entry) for key, entry in value.items()}
    if isinstance(name := found.get('type'), str) and '.' not in name:
        registries = MODELS, DATASETS, TASK_UTILS, TRANSFORMS
        found['type'] = next(filter(None, (r.get(name) for r in registries)), name)
    return found


def test_a_config_of_classes_without_a_scope(shapes, tmp_path):
    """mmdet's new-style base has default_scope = None."""
    cfg = host_cfg(RETINANET, shapes, tmp_path)
    names = 'model', 'train_dataloader', 'val_dataloader'
    cfg.merge_from_dict({name: lazily(cfg[name].to_dict()) for name in names})
    cfg.default_scope = None
    assert isinstance(cfg.model.type, type)
    runner = build_trainer(cfg)
    runner.train()
    runner.model.eval()
    candidates = candidates_of(cfg, runner.model, shapes)
    arch = some_archs(candidates.backbone.space, 1)[0]
    assert candidates.evaluate([Proposal(Complete(arch))])[0].score > 0


def test_objects_of_calibration_images_are_asked_for(shapes, tmp_path):
    """CondInst's masks follow from its boxes."""
    cfg = host_cfg(CONDINST, shapes, tmp_path)
    steps = cfg.train_dataloader.dataset.pipeline
    cfg.train_dataloader.dataset.pipeline = [
        step for step in steps if step.type != 'LoadAnnotations'
    ]
    model = MODELS.build(cfg.model)
    candidates = candidates_of(cfg, model, shapes)
    arch = some_archs(model.backbone.space, 1)[0]
    with pytest.raises(UserError, match='need their bboxes.*LoadAnnotations'):
        candidates.evaluate([Proposal(Complete(arch))])


@pytest.mark.parametrize(
    'name',
    [CONDINST, 'yolact/yolact_r50_1xb8-55e_coco', 'yolof/yolof_r50-c5_8xb8-1x_coco'],
)
def test_detectors_that_are_counted(name, shapes, tmp_path):
    """Those that look at objects or at what a pipeline says of an image."""
    cfg = host_cfg(name, shapes, tmp_path)
    parts = measure(Config(dict(model=cfg.model)), (128, 128)).parts
    assert all(parts[part].macs for part in ('backbone', 'neck', 'bbox_head'))
    assert 'mask_head' not in cfg.model or parts['mask_head'].macs


def repeated(inner):
    return dict(type='RepeatDataset', times=3, dataset=inner)


def mixed(inner):
    pipeline = [dict(type='CopyPaste', max_num_pasted=100)]
    return dict(type='MultiImageMixDataset', dataset=inner, pipeline=pipeline)


@pytest.mark.parametrize('wrap', [repeated, mixed, lambda x: repeated(mixed(x))])
def test_calibration_images_come_from_inside_of_wrappers(wrap, shapes):
    train, archval = loader_cfg(shapes, 'archtrain'), loader_cfg(shapes, 'archval')
    inner = dict(train['dataset'], pipeline=[dict(type='LoadImageFromFile')])
    train['dataset'] = wrap(inner)
    found = calibration_cfg(train, archval)['dataset']
    assert found == dict(inner, pipeline=archval['dataset']['pipeline'])
    two = dict(type='ConcatDataset', datasets=[inner, wrap(inner)])
    loader = calibration_cfg(dict(dataset=two), archval)
    assert len(build_loader(loader, 'x').dataset) == 2 * 6


def test_arguments_of_another_kind_are_refused():
    cfg = ConfigDict(type='mmcr.CRResNet', depth=18, expand_ratio=0.5, arch='P5')
    with pytest.raises(UserError, match='takes no arch, expand_ratio.*_delete_'):
        MODELS.build(cfg)
