"""Detectors whose networks are files: what they find is what torch finds."""

import copy

import pytest
import torch
from mmcv.ops import DeformConv2dPack
from mmdet.models import DETR
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict
from tiny import detector_cfg
from torch.utils._pytree import tree_leaves

from mmcr.data import CLASSES
from mmcr.errors import UserError
from mmcr.files import write_json
from mmcr.models import runtimes
from mmcr.models.deployed import (
    deployed,
    left_in_torch,
    padded,
    parts_of,
    run_by,
)
from mmcr.models.runtimes import Session, check_runtime, converted, write_onnx
from mmcr.registry import MODELS

pytestmark = pytest.mark.usefixtures('quiet_mmdet')

SHAPE = 70, 90  # no multiples of a stride
STRIDES = [4, 8, 16, 32]
HEADS = {
    'RetinaNet': dict(
        type='RetinaHead',
        anchor_generator=dict(
            type='AnchorGenerator', scales=[4], ratios=[1.0], strides=STRIDES
        ),
    ),
    'FCOS': dict(
        type='FCOSHead', strides=STRIDES, norm_cfg=dict(type='GN', num_groups=4)
    ),
    'RTMDet': dict(
        type='RTMDetSepBNHead',
        norm_cfg=dict(type='BN'),
        with_objectness=False,
        bbox_coder=dict(type='DistancePointBBoxCoder'),
        anchor_generator=dict(type='MlvlPointGenerator', offset=0, strides=STRIDES),
    ),
}
CASCADE = dict(stages=2, weights=[1, 0.5])
KINDS = ['FasterRCNN', 'CascadeRCNN', 'MaskRCNN', *HEADS]


def config_of(kind: str) -> dict:
    """A narrow detector that keeps what it finds."""
    cfg = detector_cfg(dict(stage_blocks=(1, 1, 1, 1)))
    if kind in HEADS:
        head = dict(in_channels=16, feat_channels=16, stacked_convs=1)
        return dict(
            type=kind,
            data_preprocessor=cfg.data_preprocessor,
            backbone=cfg.backbone,
            neck=dict(cfg.neck, num_outs=4),
            bbox_head=dict(HEADS[kind], num_classes=len(CLASSES), **head),
            test_cfg=ConfigDict(
                nms_pre=50,
                min_bbox_size=0,
                score_thr=0.0,
                nms=dict(type='nms', iou_threshold=0.6),
                max_per_img=20,
            ),
        )
    heads, cfg.train_cfg = cfg.roi_head, None
    if kind == 'CascadeRCNN':
        heads.update(
            type='CascadeRoIHead',
            num_stages=CASCADE['stages'],
            stage_loss_weights=CASCADE['weights'],
            bbox_head=[copy.deepcopy(heads.bbox_head) for _ in range(2)],
        )
        for head in heads.bbox_head:
            head.reg_class_agnostic = True
    if kind == 'MaskRCNN':
        layer = dict(type='RoIAlign', output_size=6, sampling_ratio=0)
        heads.mask_roi_extractor = dict(heads.bbox_roi_extractor, roi_layer=layer)
        small = dict(num_convs=1, in_channels=16, conv_out_channels=8)
        heads.mask_head = dict(type='FCNMaskHead', num_classes=len(CLASSES), **small)
        cfg.test_cfg.rcnn.mask_thr_binary = 0.5
    return dict(cfg, type='FasterRCNN' if kind == 'FasterRCNN' else kind)


def built(kind: str):
    cfg = config_of(kind)
    torch.manual_seed(0)
    detector = MODELS.build(cfg)
    detector.init_weights()
    for weight in detector.parameters():  # what begins at 0 shows nothing
        weight.data += 0.05 * torch.randn_like(weight)
    return detector.eval()


@torch.no_grad()
def found(detector, images) -> list:
    height, width = images.shape[-2:]
    meta = dict(img_shape=(height, width), ori_shape=(height, width))
    meta.update(scale_factor=(1.0, 1.0), batch_input_shape=(height, width))
    samples = [DetDataSample(metainfo=meta) for _ in images]
    return [s.pred_instances for s in detector.predict(images, samples)]


def assert_same(ours, theirs, atol=1e-3):
    for mine, other in zip(ours, theirs, strict=True):
        assert len(mine) == len(other) > 0
        torch.testing.assert_close(mine.scores, other.scores, atol=atol, rtol=0)
        torch.testing.assert_close(mine.bboxes, other.bboxes, atol=30 * atol, rtol=0)


@pytest.mark.parametrize('kind', KINDS)
def test_parts_take_the_place_of_the_network(kind):
    detector = built(kind)
    images = padded(torch.randn(2, 3, *SHAPE), detector)
    before = found(detector, images)
    parts = parts_of(detector)
    assert left_in_torch(detector, parts) == []
    calls = []

    def session(part):
        module = copy.deepcopy(part.module)

        def run(given):
            calls.append(part.name)
            outputs = tree_leaves(module(given))
            assert len(outputs) == len(part.outputs)
            return outputs

        return run

    run_by(detector, parts, {part.name: session(part) for part in parts})
    assert_same(found(detector, images), before)
    assert set(calls) == {part.name for part in parts} and calls[0] == 'network'
    found(detector, torch.randn(1, 3, *SHAPE))  # it pads by itself


def test_padding_is_the_detectors():
    detector = built('RTMDet')
    detector.data_preprocessor.pad_value = 5
    image = padded(torch.ones(1, 3, 32, 33), detector)
    assert image.shape == (1, 3, 32, 64) and image[..., 33:].unique() == 5


def test_files_of_another_detector(tmp_path):
    record = dict(files=dict(network='x.onnx'), outputs=dict(network=['cls_scores.0']))
    write_json(tmp_path / 'x.onnx.json', record)
    with pytest.raises(UserError, match='must be that which was exported'):
        deployed(built('RetinaNet'), tmp_path / 'x.onnx.json')


@pytest.mark.parametrize('other', [{}, [1], dict(files={}), 'found'])
def test_files_of_something_else(tmp_path, other):
    write_json(tmp_path / 'x.json', other)
    with pytest.raises(UserError, match='x.json must be what an export wrote'):
        deployed(built('RetinaNet'), tmp_path / 'x.json')


def test_names_of_outputs():
    network, head = parts_of(built('FasterRCNN'))
    assert network.outputs[:6] == [*(f'features.{i}' for i in range(5)), 'cls_scores.0']
    assert head.name == 'bbox_head' and head.outputs == ['cls_score', 'bbox_pred']
    names = [part.name for part in parts_of(built('CascadeRCNN'))]
    assert names == ['network', 'bbox_head.0', 'bbox_head.1']


def test_what_cannot_be_exported():
    supernet = detector_cfg(dict(supernet='operation', stage_blocks=(1, 1, 1, 1)))
    with pytest.raises(UserError, match='extract_subnet.py'):
        parts_of(MODELS.build(supernet))
    with pytest.raises(UserError, match='of one stage and those with an RPN'):
        parts_of(DETR.__new__(DETR))


def test_missing_packages_are_one_message(monkeypatch):
    monkeypatch.setattr(runtimes, 'find_spec', lambda name: None)
    with pytest.raises(UserError, match='pip install onnx onnxscript openvino '):
        check_runtime('openvino')
    with pytest.raises(UserError, match='pip install .*openvino onnxruntime '):
        check_runtime('openvino', 'int8')
    with pytest.raises(UserError, match='one of onnxruntime, openvino .* tensorrt'):
        check_runtime('tensorrt')


def exported(part, folder):
    pytest.importorskip('onnxscript')
    path = folder / f'{part.name}.onnx'
    write_onnx(path, part.module, part.example, part.dims, part.outputs)
    return path


@pytest.mark.slow
@pytest.mark.parametrize('kind', KINDS)
def test_runtimes_find_what_torch_finds(kind, tmp_path):
    pytest.importorskip('onnxruntime')
    detector = built(kind)
    parts = parts_of(detector)
    paths = {part.name: exported(part, tmp_path) for part in parts}
    sizes = (1, 3, *SHAPE), (2, 3, 40, 40)
    others = [padded(torch.randn(size), detector) for size in sizes]
    before = [found(detector, images) for images in others]
    run_by(detector, parts, {name: Session(path) for name, path in paths.items()})
    for images, theirs in zip(others, before):
        assert_same(found(detector, images), theirs)

    pytest.importorskip('openvino')
    for name, path in paths.items():
        converted(path, path.with_suffix('.xml'), 'fp32')
        paths[name] = path.with_suffix('.xml')
    run_by(detector, parts, {name: Session(path) for name, path in paths.items()})
    for images, theirs in zip(others, before):
        assert_same(found(detector, images), theirs)


class Small(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first = torch.nn.Conv2d(3, 8, 3)
        self.norm = torch.nn.BatchNorm2d(8)
        self.last = torch.nn.Conv2d(8, 4, 1)

    def forward(self, x):
        return self.last(self.norm(self.first(x)).relu()).exp()


@pytest.mark.parametrize('suffix', ['.onnx', '.xml'])
def test_lower_precisions_are_near_and_smaller(tmp_path, suffix):
    pytest.importorskip('onnxscript')
    pytest.importorskip('onnxruntime')
    onnx = pytest.importorskip('onnx')
    pytest.importorskip('openvino')
    net, images = Small().eval(), [torch.randn(1, 3, 16, 16) for _ in range(4)]
    path = tmp_path / 'net.onnx'
    write_onnx(path, net, images[0])
    with torch.no_grad():
        truth = net(images[0])
    errors = {}
    for precision in runtimes.PRECISIONS:
        out = tmp_path / f'{precision}{suffix}'
        converted(path, out, precision, images)
        (output,) = Session(out)(images[0])
        errors[precision] = float((output - truth).norm() / truth.norm())
    assert errors['fp32'] < 1e-5 < errors['fp16'] < 2e-3 < errors['int8'] < 5e-2
    if suffix == '.onnx':
        nodes = onnx.load(tmp_path / 'int8.onnx').graph.node
        made = {name: node.op_type for node in nodes for name in node.output}
        convs = [node for node in nodes if node.op_type == 'Conv']
        kinds = [made.get(conv.input[1]) for conv in convs]
        # the last one's weights stay floats
        assert kinds == ['DequantizeLinear', None]


def test_layers_that_cannot_be_exported(tmp_path):
    pytest.importorskip('onnxscript')

    with pytest.raises(UserError, match='must be of layers that torch.onnx can export'):
        write_onnx(
            tmp_path / 'odd.onnx', DeformConv2dPack(3, 4, 3), torch.ones(2, 3, 8, 8)
        )
