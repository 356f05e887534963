"""A supernet whose largest path teaches the others."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from nets import on_path
from tiny import OPERATION, STAGE, build_detector, loader_cfg

from mmcr.errors import UserError
from mmcr.models.detector import backbone_returns
from mmcr.scoring.loaders import build_loader
from mmcr.space import stage_arch
from mmcr.training import InPlaceDistillationHook

pytestmark = pytest.mark.usefixtures('quiet_mmdet')

LARGEST, SMALL = stage_arch((2, 2, 2, 3)), stage_arch((1, 2, 2, 2))


def batch(detector, root):
    loader = build_loader(loader_cfg(root, 'archtrain'), 'archtrain')
    return detector.data_preprocessor(next(iter(loader)), training=True)


def less_correlation(ours, theirs):
    """One less the mean over levels and channels, in numpy."""
    pairs = [
        np.corrcoef(a[:, c].flatten(), b[:, c].flatten())[0, 1]
        for a, b in zip(ours, theirs)
        for c in range(a.shape[1])
    ]
    return 1 - np.mean(pairs)


@pytest.mark.parametrize('with_cp', (False, True))
def test_paths_are_drawn_towards_the_largest(shapes, with_cp):
    detector = build_detector(dict(STAGE, with_cp=with_cp))
    data, backbone = batch(detector, shapes), detector.backbone
    hook = InPlaceDistillationHook(weight=2.0)
    levels = {}
    for arch in (LARGEST, SMALL):
        backbone.set_arch(arch)
        found = detector.extract_feat(data['inputs'])
        levels[arch] = [level.detach().numpy() for level in found]
    expected = 2 * less_correlation(levels[SMALL], levels[LARGEST])
    hook.before_train(SimpleNamespace(model=detector))
    with torch.no_grad():
        with backbone_returns(detector, backbone(data['inputs'])):
            detector(**data, mode='predict')
    losses = detector(**data, mode='loss')
    assert backbone.arch == SMALL and expected > 0.01
    loss = losses['loss_distillation']
    assert loss.item() == pytest.approx(expected, rel=1e-3)
    assert loss in detector.parse_losses(losses)[1].values()
    loss.backward()
    learns = {n for n, p in detector.named_parameters() if p.grad is not None}
    path = {f'backbone.{name}' for name in on_path(backbone, SMALL)}
    assert learns == path | {n for n, _ in detector.named_parameters() if 'neck' in n}
    # neither the largest itself, nor a training after this one
    backbone.set_arch(LARGEST)
    assert 'loss_distillation' not in detector(**data, mode='loss')
    hook.after_train(None)
    backbone.set_arch(SMALL)
    assert 'loss_distillation' not in detector(**data, mode='loss')


def test_what_cannot_be_taught():
    for weight, words in ((0, 'must be above 0'), ('a', "finite number.*'a'")):
        with pytest.raises(UserError, match=words):
            InPlaceDistillationHook(weight)
    runner = SimpleNamespace(model=build_detector(OPERATION))
    with pytest.raises(UserError, match='have no cost'):
        InPlaceDistillationHook().before_train(runner)
