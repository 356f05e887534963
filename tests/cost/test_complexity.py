from collections import Counter
from functools import partial

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.analysis import get_model_complexity_info
from mmengine.config import Config
from nets import SUPERNETS, WIDER, counted, some_archs
from torch import nn

from mmcr.cost.budget import budget_space
from mmcr.cost.complexity import (
    TRACED_ROIS,
    _run_all_layers,
    macs_beside_backbone,
    measure,
)
from mmcr.cost.macs import CONVENTIONS, MacsCounter, shapes_only
from mmcr.errors import UserError
from mmcr.space import PUBLISHED

FASTER = 'faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'
MASK = 'mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'
C4 = 'faster_rcnn/faster-rcnn_r50-caffe_c4-1x_coco.py'
RETINA = 'retinanet/retinanet_r50_fpn_1x_coco.py'
# Per RoI, by hand: two hidden layers and the class and box outputs; four 3x3 convs,
# the deconvolution and the 80 masks.
BOX = 256 * 7 * 7 * 1024 + 1024 * 1024 + 1024 * 81 + 1024 * 320
# Four 3x3 convs, the last of stride 2, on masks beside features; three linear layers.
MASK_IOU = 14**2 * 257 * 256 * 9 + 2 * 14**2 * 256 * 256 * 9 + 7**2 * 256 * 256 * 9
MASK_IOU += 7**2 * 256 * 1024 + 1024 * 1024 + 1024 * 80
MASKS = 4 * 14**2 * 256 * 256 * 9 + 28**2 * 256 * 256 + 28**2 * 256 * 80


def detector(base, **backbone):
    cfg = Config.fromstring(f"_base_ = 'mmdet::{base}'", '.py')
    cfg.model.backbone.update(type='mmcr.CRResNet', init_cfg=None, **backbone)
    return cfg


def by_hooks(net, run):
    """Products of convs and linear layers by part; elements of norms and ReLUs."""
    macs = Counter()

    def count(part, layer, inputs, output):
        if isinstance(layer, (nn.BatchNorm2d, nn.ReLU)):
            macs['elements'] += output.numel()
        elif isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            times = inputs[0] if isinstance(layer, nn.ConvTranspose2d) else output
            macs[part] += times.numel() * layer.weight[0].numel()

    net.eval()
    for name, layer in net.named_modules():
        part = name.removeprefix('roi_head.').split('.')[0]
        layer.register_forward_hook(partial(count, part))
    with torch.no_grad():
        run()
    return macs


@pytest.mark.parametrize('base, heads', [(FASTER, 'bbox'), (MASK, 'bbox mask')])
def test_the_parts_and_their_sum(base, heads):
    cfg = detector(base)
    state = torch.get_rng_state()
    found = measure(cfg, (64, 96))
    assert torch.equal(torch.get_rng_state(), state)
    heads = [f'roi_head.{head}_head' for head in heads.split()]
    assert list(found.parts) == ['backbone', 'neck', 'rpn_head', *heads]
    assert found.macs == sum(cost.macs for cost in found.parts.values())
    model = MODELS.build(cfg.model)
    for net, cost in ((model, found), (model.backbone, found.parts['backbone'])):
        assert cost.params == sum(p.numel() for p in net.parameters())
    texts = ['total', f'{found.macs / 1e9:.3f}', '64 x 96', '1000 RoIs', *found.parts]
    for text in (*texts, CONVENTIONS['mmengine'].meaning):
        assert text in found.table()


def test_rois_by_hand_in_both_conventions():
    plain, paper = (
        measure(detector(MASK), (64, 64), name).parts for name in ('mmengine', 'paper')
    )
    assert plain['roi_head.bbox_head'].macs == 1000 * BOX
    assert plain['roi_head.mask_head'].macs == 100 * MASKS
    assert paper['roi_head.bbox_head'].macs == 2000 * (BOX + 2 * 1024)
    relu = 4 * 14**2 * 256 + 28**2 * 256
    assert paper['roi_head.mask_head'].macs == 128 * (MASKS + relu)


def test_every_part_that_runs_per_roi_is_multiplied():
    cfg = detector(C4)
    found = measure(cfg, (800, 1088))
    assert found.macs / 1e9 == pytest.approx(820.98, abs=0.005)
    with torch.device('meta'):
        shared = MODELS.build(cfg.model.roi_head.shared_head)
        convs = 1000 * counted(shared, (14, 14), 1024)
    head, rpn = 1000 * 2048 * (81 + 320), 50 * 68 * 1024 * (9 * 1024 + 15 + 60)
    fit = cfg.model.backbone, [1024], [1024], (800, 1088)
    beside = macs_beside_backbone(cfg.model, *fit)
    assert beside == rpn + convs + head
    assert found.parts['roi_head.shared_head'].macs > convs
    # of the masks' RoIs, not of the boxes'
    path = 'mmdet::ms_rcnn/ms-rcnn_r50-caffe_fpn_1x_coco.py'
    cfg = Config.fromstring(f"_base_ = '{path}'", '.py')
    parts = measure(cfg, (64, 64)).parts
    assert parts['roi_head.mask_iou_head'].macs == 100 * MASK_IOU


def test_deformable_convolutions_count_as_plain_ones():
    plain = detector(RETINA)
    dcn = dict(type='DCNv2', deform_groups=1)
    deformable = detector(RETINA, dcn=dcn, stage_with_dcn=(False, False, False, True))
    plain, deformable = (
        measure(cfg, (64, 96)).parts['backbone'].macs for cfg in (plain, deformable)
    )
    # the conv that finds 27 offsets and masks, at the block's output
    assert deformable - plain == 3 * 512 * 9 * 27 * 2 * 3


def test_modules_of_two_parts_are_of_the_first():
    one, other = nn.Linear(3, 5), nn.Linear(5, 2)
    both = nn.Sequential(one, other)
    found = []
    with torch.no_grad(), MacsCounter() as counter:
        counter.watch(dict(a=one, b=both), lambda *call: found.append(call[:2]))
        both(torch.zeros(4, 3))
    assert found == [('a', 4 * 15), ('b', 4 * 10)] and counter.total == 4 * 25


def test_the_papers_count_agrees_with_one_by_hooks():
    cfg = detector(FASTER, stage_blocks=(1, 3, 2, 2))
    found = measure(cfg, (64, 96), 'paper').parts['backbone'].macs
    net = MODELS.build(cfg.model.backbone)
    macs = by_hooks(net, lambda: net(torch.zeros(1, 3, 64, 96)))
    assert macs['elements'] > 0 and found == macs.total()


@pytest.mark.parametrize(
    'base, name',
    [
        ('faster-rcnn_r50_fpn', 'r50-stage'),
        ('faster-rcnn_r50_fpn', 'detnas-block'),
        ('retinanet_r50_fpn', 'detnas-block'),
        ('cascade-mask-rcnn_r50_fpn', 'mobilenetv2-stage'),
    ],
)
def test_macs_of_the_whole_detector(base, name):
    path, _ = Config._get_cfg_path(f'mmdet::_base_/models/{base}.py', '')
    model = Config.fromfile(path).model
    net = MODELS.build(SUPERNETS[name])
    final = WIDER[SUPERNETS[name]['type']]
    budget = dict(type='macs', limit=1e12, shape=(64, 96), of='detector')
    # the neck of the supernet takes other channels than that of what is found
    neck = dict(model.neck, in_channels=list(net.out_channels))
    supernet_model = dict(model, backbone=SUPERNETS[name], neck=neck)
    space = budget_space(net, final, budget, supernet_model)
    for arch in some_archs(net.space, 2):
        model.backbone = {**net.arch_cfg(arch), **final}
        model.neck.in_channels = list(MODELS.build(model.backbone).out_channels)
        with torch.device('meta'):
            detector = MODELS.build(model)
            images = torch.zeros(1, 3, 64, 96)
        with shapes_only(detector):
            macs = by_hooks(detector, partial(_run_all_layers, detector, images))
        del macs['elements']
        if 'roi_head' in model:
            box, mask = macs.pop('bbox_head'), macs.pop('mask_head', 0)
            macs['per RoI'] = (box * 1000 + mask * 100) // TRACED_ROIS
        assert space.cost_of(arch) == macs.total()
    with pytest.raises(UserError, match='needs the detector'):
        budget_space(net, final, budget)


def test_the_plain_count_is_mmengines():
    cfg = detector(RETINA)
    found = measure(cfg, (64, 64))
    model = MODELS.build(cfg.model).eval()
    images = torch.zeros(1, 3, 64, 64)
    options = dict(inputs=images, show_table=False, show_arch=False)
    plain = get_model_complexity_info(model, None, **options)
    assert (found.macs, found.params) == (plain['flops'], plain['params'])
    assert list(found.parts) == ['backbone', 'neck', 'bbox_head'] and not found.rois


def test_of_means_only_pooling_counts():
    x = torch.zeros(1, 4, 8, 8)
    with MacsCounter(CONVENTIONS['mmengine']) as counter:
        x.mean(), x.mean(1), x.mean(None, keepdim=True)
        assert counter.total == 0
        x.mean((-1, -2), keepdim=True)
    assert counter.total == x.numel()


def test_dilation_costs_nothing_and_size_is_padded():
    blocks, dilations = PUBLISHED['r18'].stage_cr, PUBLISHED['r18'].dilations
    plain = detector(FASTER, depth=18, stage_blocks=blocks)
    dilated = detector(FASTER, depth=18, stage_blocks=blocks, dilations=dilations)
    for cfg in (plain, dilated):
        cfg.model.neck.in_channels = [64, 128, 256, 512]
    found = measure(plain, (64, 64))
    dilated.default_scope = None  # as in configs that say none
    assert measure(dilated, (50, 33)) == found
    assert found.shape == (64, 64)


@pytest.mark.parametrize(
    'cfg, shape, convention, message',
    [
        (Config(), (64, 64), 'mmengine', 'must define a detector as model'),
        (Config(dict(model={})), (64, 64), 'guess', "one of .*'paper'.* got 'guess'"),
        (Config(dict(model={})), (64, 0), 'paper', r'height and a width .*\(64, 0\)'),
    ],
)
def test_bad_input(cfg, shape, convention, message):
    with pytest.raises(UserError, match=message):
        measure(cfg, shape, convention)


def test_the_tool(tmp_path, run_tool, capsys):
    config = tmp_path / 'mine.py'
    config.write_text(f"_base_ = 'mmdet::{RETINA}'\n")
    options = '--shape 64 --convention paper --cfg-options model.backbone.depth=101'
    out = run_tool('get_flops.py', config, *options.split())
    cfg = detector(RETINA, depth=101)
    assert out.endswith(measure(cfg, (64, 64), 'paper').table() + '\n')
    with pytest.raises(SystemExit):
        run_tool('get_flops.py', tmp_path / 'none.py')
    assert 'there is none at' in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    'name, faster, mask', [('baseline', 192.19, 260.07), ('stage_cr', 192.10, 259.97)]
)
def test_the_papers_costs(name, faster, mask):
    """At 800 x 1088, within 0.6% of its 192.5, 192.7, 261.2 and 261.0 G."""
    blocks = getattr(PUBLISHED['r50'], name)
    found = measure(detector(MASK, stage_blocks=blocks), (800, 1088), 'paper')
    mask_head = found.parts['roi_head.mask_head'].macs
    assert found.macs / 1e9 == pytest.approx(mask, abs=0.005)
    assert (found.macs - mask_head) / 1e9 == pytest.approx(faster, abs=0.005)


def test_parts_that_the_forward_does_not_run_are_named():
    path, _ = Config._get_cfg_path(
        'mmdet::point_rend/point-rend_r50-caffe_fpn_ms-1x_coco.py', ''
    )
    found = measure(Config.fromfile(path), (64, 64))
    assert found.unreached == ('roi_head.point_head',)
    assert "without roi_head.point_head, which mmdet's forward" in found.table()
    assert not measure(detector(RETINA), (64, 64)).unreached


def test_the_whole_detector_is_counted_on_a_padded_image():
    path, _ = Config._get_cfg_path('mmdet::yolox/yolox_tiny_8xb8-300e_coco.py', '')
    model = Config.fromfile(path).model
    csp = dict(type='mmcr.CRCSPDarknet', deepen_factor=0.33, widen_factor=0.375)
    model.backbone = dict(csp, supernet='stage')
    net = MODELS.build(dict(model.backbone))

    def space(*shape):
        budget = dict(type='macs', limit=1e12, of='detector', shape=shape)
        return budget_space(net, {}, budget, model)

    of_any, of_padded = space(100, 150), space(128, 160)
    arch = next(iter(of_any))
    assert of_any.cost_of(arch) == of_padded.cost_of(arch)
    model.data_preprocessor.pad_size_divisor = 1
    with pytest.raises(UserError, match='100 x 150.*multiples of 32'):
        space(100, 150)
