"""Weights of another width, or of a fixed network, start nothing by halves."""

import copy

import pytest
import torch
from baselines import R18
from mmdet.registry import MODELS
from nets import equal
from tiny import STAGE, build_detector

from mmcr.models.weights import compatibility
from mmcr.models.weights.checkpoint import CheckpointError
from mmcr.models.weights.compatibility import check_start, load_detector

pytestmark = pytest.mark.usefixtures('quiet_mmdet')
NARROW = dict(R18, type='mmcr.CRResNet')


def backbone(**more):
    return MODELS.build(dict(NARROW, **more))


def test_another_width_is_refused(tmp_path):
    narrow, wide = backbone(), backbone(base_channels=16)
    torch.save(dict(state_dict=narrow.state_dict()), tmp_path / 'r18.pth')
    wide.init_cfg = dict(type='Pretrained', checkpoint=f'{tmp_path}/r18.pth')
    theirs, ours = (net.out_channels[-1] for net in (narrow, wide))
    assert theirs != ours
    words = rf'as wide.*\({theirs},\) there and \({ours},\) here.*base_channels'
    with pytest.raises(CheckpointError, match=words):
        wide.init_weights()
    with pytest.raises(CheckpointError, match=words):
        wide.load_state_dict(narrow.state_dict(), strict=False)


def test_blocks_that_would_stay_random_are_refused():
    state = backbone().state_dict()
    deeper = backbone(stage_blocks=(2, 3, 2, 2))
    with pytest.raises(CheckpointError, match='layer2.2.*mmcr.ReallocatedInit'):
        deeper.load_state_dict(state, strict=False)
    backbone(stage_blocks=(1, 2, 2, 2)).load_state_dict(state, strict=False)
    # what is no block may be missing, as with a part that was added
    fewer = {n: w for n, w in state.items() if 'bn1.bias' not in n}
    backbone().load_state_dict(fewer, strict=False)


@pytest.mark.parametrize('share', ['prefix', 'branch'])
def test_a_supernet_does_not_take_a_fixed_network(share):
    supernet = backbone(supernet='stage', share=share)
    with pytest.raises(CheckpointError, match=r'options.*mmcr.ReallocatedInit'):
        supernet.load_state_dict(backbone().state_dict(), strict=False)
    stem = {n: w for n, w in backbone().state_dict().items() if 'layer' not in n}
    supernet.load_state_dict(stem, strict=False)


def test_what_a_detector_starts_from(monkeypatch):
    """Other heads are other classes; another backbone is a mistake."""
    model = build_detector(dict(stage_blocks=(1, 1, 1, 1)))
    weights = copy.copy(dict(model.state_dict()))
    head = 'roi_head.bbox_head.fc_cls.weight'
    check_start({**weights, head: torch.ones(81, 32)}, model, 'coco.pth')
    check_start({f'module.{n}': w for n, w in weights.items()}, model, 'ddp.pth')
    wider = {**weights, 'backbone.conv1.weight': torch.ones(9, 3, 7, 7)}
    with pytest.raises(CheckpointError, match='coco.pth must be as wide'):
        check_start(wider, model, 'coco.pth')
    with pytest.raises(CheckpointError, match='none of the names.*init_cfg'):
        check_start(backbone().state_dict(), model, 'r18.pth')
    warned = []
    monkeypatch.setattr(compatibility, 'print_log', lambda *said: warned.append(said))
    supernet = build_detector(STAGE)
    supernet.load_state_dict(weights, strict=False)
    ((text, *_),) = warned
    assert 'start at random' in text and 'mmcr.ReallocatedInit' in text
    assert equal(supernet.neck.state_dict(), model.neck.state_dict())


SMALL = dict(stage_blocks=(1, 1, 1, 1))
BOX = 'roi_head.bbox_head'


@pytest.mark.parametrize(
    'changed',
    [
        lambda state: {f'module.{name}': weight for name, weight in state.items()},
        lambda state: {**state, 'data_preprocessor.mean': torch.ones(3, 1, 1)},
        lambda state: {n: w for n, w in state.items() if 'batches_tracked' not in n},
        lambda state: {**state, 'ema_backbone_conv1_weight': torch.ones(1)},
        lambda state: {**state, 'roi_head.mask_head.convs.0.weight': torch.ones(1)},
    ],
)
def test_a_whole_detector_is_loaded(changed, tmp_path):
    trained, path = build_detector(SMALL, seed=1), str(tmp_path / 'best.pth')
    torch.save(dict(state_dict=changed(trained.state_dict())), path)
    detector = build_detector(SMALL)
    load_detector(detector, path)
    assert equal(detector.state_dict(), trained.state_dict())


@pytest.mark.parametrize(
    'changed, said',
    [
        ({f'{BOX}.fc_cls.weight': torch.ones(81, 32)}, r'fc_cls.*\(81, 32\), not \(7,'),
        ({f'{BOX}.fc_cls.bias': None}, 'fc_cls.bias is missing'),
        ({'backbone.bn1.running_var': None}, 'running_var is missing'),
        ({f'{BOX}.shared_fcs.2.weight': torch.ones(1)}, 'shared_fcs.2.* is unknown'),
        ({'neck.scale': torch.ones(1)}, 'neck.scale is unknown'),
        ({'backbone.fc.weight': torch.ones(1)}, 'backbone.fc.weight is unknown'),
    ],
)
def test_a_part_of_a_detector_is_refused(changed, said, tmp_path):
    state, path = build_detector(SMALL).state_dict() | changed, str(tmp_path / 'a.pth')
    state = {name: weight for name, weight in state.items() if weight is not None}
    torch.save(dict(state_dict=state), path)
    with pytest.raises(CheckpointError, match=f'a.pth .*{said}'):
        load_detector(build_detector(SMALL), path)


def test_names_of_before_are_those_that_a_head_knows(tmp_path):
    head = dict(num_classes=6, in_channels=4, feat_channels=4, stacked_convs=0)
    detector = torch.nn.Sequential()
    detector.add_module('bbox_head', MODELS.build(dict(head, type='FCOSHead')))
    state, path = detector.state_dict(), str(tmp_path / 'fcos.pth')
    old = {name.replace('conv_cls', 'fcos_cls'): w for name, w in state.items()}
    assert old.keys() != state.keys()
    torch.save(dict(state_dict=old), path)
    load_detector(detector, path)
    old['bbox_head.fcos_cls.bias'] = torch.ones(80)
    torch.save(dict(state_dict=old), path)
    with pytest.raises(CheckpointError, match='1 differences.*conv_cls.bias'):
        load_detector(detector, path)
