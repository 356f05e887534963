"""What an mmdet detector looks like around its backbone."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmdet.models import TwoStageDetector
from mmengine.config import Config
from mmengine.model import is_model_wrapper
from mmengine.registry import init_default_scope
from torch import Tensor, nn

from mmcr.errors import UserError
from mmcr.registry import MODELS


def unwrapped(model: nn.Module) -> nn.Module:
    """The detector itself, without the wrapper of a distributed run."""
    return model.module if is_model_wrapper(model) else model


def find_backbone(model: nn.Module) -> nn.Module:
    """The supernet backbone inside a detector, wrapped or not."""
    model = unwrapped(model)
    backbone = getattr(model, 'backbone', None)
    if getattr(backbone, 'space', None) is None:
        raise UserError(
            f'The backbone must be a supernet, but {type(model).__name__} has '
            f'{type(backbone).__name__}. Set model.backbone to a searchable type such '
            f"as 'mmcr.CRResNet' with supernet='stage' or 'operation', or "
            f"'mmcr.DetNASNet' with supernet='block'."
        )
    return backbone


def supernet_of(cfg: Config) -> tuple[nn.Module, dict]:
    """Returns a config's supernet backbone, without weights, and `final_backbone`."""
    init_default_scope(cfg.get('default_scope') or 'mmdet')
    backbone_cfg = cfg.get('model', {}).get('backbone')
    if backbone_cfg is None:
        raise UserError('The config must have a backbone as model.backbone.')
    with torch.random.fork_rng(devices=[]), torch.device('meta'):
        backbone = MODELS.build(backbone_cfg)
    if getattr(backbone, 'space', None) is None:
        raise UserError(
            f"The config's backbone must be a supernet, with supernet='stage', "
            f"'operation' or 'block', but it is a fixed {type(backbone).__name__}: "
            f'give the config of the search.'
        )
    return backbone, dict((cfg.get('test_cfg') or {}).get('final_backbone') or {})


def has_rois(detector: nn.Module) -> bool:
    """Whether an RPN passes RoIs on to heads in the way of mmdet's two-stage kinds."""
    # a forward or proposals of their own feed the heads of some others
    forward = getattr(type(detector), '_forward', None)
    if forward is not TwoStageDetector._forward:
        return False
    return 'max_per_img' in (detector.test_cfg.get('rpn') or {})


class _Given(nn.Module):
    """Stands in for a backbone that has run already."""

    def __init__(self, features: tuple[Tensor, ...]) -> None:
        super().__init__()
        self.features = features

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return self.features


@contextmanager
def backbone_returns(model: nn.Module, features: tuple[Tensor, ...]) -> Iterator[None]:
    """The detector takes these features for those of its backbone."""
    backbone, model.backbone = model.backbone, _Given(features)
    try:
        yield
    finally:
        model.backbone = backbone
