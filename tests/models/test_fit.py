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
from mmcr.models.weights.compatibility import check_start

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
