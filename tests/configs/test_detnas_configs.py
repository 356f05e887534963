"""The configs of DetNAS: recipes, detectors, searches and pre-training."""

import pytest
from config_files import CONFIGS, LEAVES, on_meta, read
from mmdet.registry import TASK_UTILS
from torch.nn.modules.batchnorm import _BatchNorm

from mmcr.cost.budget import budget_space
from mmcr.cost.complexity import measure
from mmcr.cost.units import count
from mmcr.engine.export import arch_fragment
from mmcr.space import DETNAS_PUBLISHED, block_arch

pytestmark = pytest.mark.usefixtures('quiet_mmdet')

DETNAS = [name for name in LEAVES if name.startswith('detnas/')]
SEARCHES = [name for name in DETNAS if name.startswith('detnas/search_')]
NETS = {'300M': '300m', '1.3G': '1300m', '3.8G': '3800m'}


@pytest.mark.parametrize('name', DETNAS)
def test_recipe(name):
    cfg = read(name)
    lr = 0.01 if 'retinanet' in name else 0.02
    optimizer = cfg.optim_wrapper.optimizer
    assert optimizer == dict(type='SGD', lr=lr, momentum=0.9, weight_decay=0.0001)
    assert cfg.train_dataloader.batch_size * 8 == cfg.auto_scale_lr.base_batch_size
    assert cfg.auto_scale_lr.base_batch_size == 16
    assert cfg.sync_bn == 'torch'
    backbone = cfg.model.backbone
    assert not backbone.get('norm_eval') and backbone.get('frozen_stages', -1) == -1
    if 'coco' in name:
        warm_up, steps = cfg.param_scheduler
        assert cfg.train_cfg.type == 'IterBasedTrainLoop'
        assert cfg.train_cfg.max_iters == steps.end == 90000
        assert (warm_up.start_factor, warm_up.end) == (1 / 3, 500)
        assert (steps.milestones, steps.gamma) == ([60000, 80000], 0.1)
        assert cfg.default_hooks.checkpoint.by_epoch is False
        assert cfg.log_processor.by_epoch is False


@pytest.mark.parametrize('name', DETNAS)
def test_norms_are_where_detnas_has_them(name):
    model = on_meta(read(name).model)
    behind = [
        key
        for key, module in model.named_modules()
        if isinstance(module, _BatchNorm) and not key.startswith('backbone.')
    ]
    if type(model).__name__ == 'RetinaNet':
        assert not behind
        return
    assert len(behind) == 8 + 4
    assert len(model.roi_head.bbox_head.shared_convs) == 4
    assert [fc.out_features for fc in model.roi_head.bbox_head.shared_fcs] == [1024]


def test_retinanet_costs_what_was_counted_elsewhere():
    """133.9 G at 800x1088, of convolutions alone; our count has norms, too."""
    cfg = read('detnas/retinanet_detnas-300m_fpn_90k_coco.py')
    parts = measure(cfg, (800, 1088)).parts
    supernet = on_meta(read('detnas/supernet_retinanet_300m_coco.py').model.backbone)
    table = count(supernet, {}, 'macs', (800, 1088))
    backbone = table.total(block_arch(cfg.model.backbone.blocks))
    total = backbone + parts['neck'].macs + parts['bbox_head'].macs
    assert total / 1e9 == pytest.approx(133.9, abs=0.05)
    assert backbone < parts['backbone'].macs < 1.05 * backbone


@pytest.mark.parametrize('key', DETNAS_PUBLISHED)
def test_published_fragments(key):
    published = DETNAS_PUBLISHED[key]
    where = key.rsplit('_', 1)[0]
    path = CONFIGS / f'_base_/archs/detnas_{where}_{NETS[published.net]}.py'
    cfg = dict(type='mmcr.DetNASNet', net=published.net, blocks=published.blocks)
    if 'retinanet' in key:
        cfg['out_indices'] = (1, 2, 3)
    comment = path.read_text().splitlines()[0].removeprefix('# ')
    assert path.read_text() == arch_fragment(cfg, comment)


@pytest.mark.parametrize('name', SEARCHES)
def test_a_search_is_detnas(name):
    cfg = read(name)
    supernet = read(name.replace('search', 'supernet'))
    assert supernet.model == cfg.model
    assert supernet.model_wrapper_cfg.type == 'mmcr.ActivePathDDP'
    backbone = on_meta(cfg.model.backbone)
    kinds = list(supernet.val_cfg.archs.values())
    assert kinds == [0, 1, 2, 3]
    assert all(backbone.space.member(kind) in backbone.space for kind in kinds)
    space = budget_space(backbone, cfg.test_cfg.final_backbone, cfg.test_cfg.budget)
    for key, member in (('coco-fpn', True), ('voc-fpn', False)):
        arch = block_arch(DETNAS_PUBLISHED[f'{key}_300M'].blocks)
        assert (arch in space) == member  # of VOC's the paper's are larger
    searcher = TASK_UTILS.build(dict(cfg.test_cfg.searcher, space=space))
    assert searcher.total == 1000
    found = {**backbone.arch_cfg(arch), **cfg.test_cfg.final_backbone}
    final = name.replace('search_fpn', 'faster-rcnn').replace('search_r', 'r')
    final = final.replace('_300m_coco', '_detnas-300m_fpn_90k_coco')
    final = final.replace('_300m_voc', '_detnas-300m_fpn_18e_voc0712')
    net = on_meta(found)
    assert net.shuffle == on_meta(read(final).model.backbone).shuffle == 2
    assert list(net.out_channels) == list(cfg.model.neck.in_channels)


def test_voc_is_split_without_overlap():
    cfg = read('detnas/search_fpn_300m_voc.py')
    trained = [d.ann_file for d in cfg.train_dataloader.dataset.dataset.datasets]
    assert trained == [
        'VOC2007/ImageSets/Main/train.txt',
        'VOC2012/ImageSets/Main/trainval.txt',
    ]
    assert cfg.test_dataloader.dataset.ann_file == 'VOC2007/ImageSets/Main/val.txt'
    calibration = cfg.test_cfg.calibration_dataloader.dataset
    assert calibration.ann_file == trained[0]
    assert cfg.test_cfg.score == cfg.val_cfg.score == 'pascal_voc/mAP'
    assert cfg.test_evaluator.type == 'VOCMetric'


@pytest.mark.parametrize('net', NETS)
def test_classifier(net):
    cfg = read(f'imagenet/detnas-{NETS[net]}_300k_imagenet.py')
    assert cfg.train_cfg.max_iters == 300000
    assert cfg.auto_scale_lr.base_batch_size == 1024
    (schedule,) = cfg.param_scheduler
    assert (schedule.start_factor, schedule.end_factor) == (1, 0)
    assert schedule.end == 300000
    optimizer = cfg.optim_wrapper.optimizer
    assert optimizer == dict(type='SGD', lr=0.5, momentum=0.9, weight_decay=4e-5)
    assert cfg.optim_wrapper.paramwise_cfg == dict(norm_decay_mult=0, bias_decay_mult=0)
    assert cfg.model.head.loss.label_smooth_val == 0.1
    detector = read(f'detnas/faster-rcnn_detnas-{NETS[net]}_fpn_90k_coco.py')
    backbone = dict(cfg.model.backbone)
    assert backbone.pop('out_indices') == (4,)
    assert backbone == detector.model.backbone  # so that weights fit


def test_pretraining_of_the_supernet():
    cfg = read('imagenet/detnas_supernet_300m.py')
    backbone = on_meta(cfg.model.backbone)
    assert backbone.out_channels == (cfg.model.head.in_channels,)
    sampling, *_ = cfg.custom_hooks
    classifier = cfg.model.head.in_channels * cfg.model.head.num_classes
    low, high = sampling.sampler.low + classifier, sampling.sampler.high + classifier
    assert (low, high, sampling.sampler.bins) == (290e6, 360e6, 7)
    published = DETNAS_PUBLISHED['coco-fpn_300M']
    table = count(backbone, {}, sampling.cost, tuple(sampling.shape))
    cost = table.total(block_arch(published.blocks))
    assert cost + classifier == published.macs
    detector = read('detnas/supernet_fpn_300m_coco.py').model.backbone
    fits = {k: v for k, v in cfg.model.backbone.items() if k != 'out_indices'}
    assert fits == detector
