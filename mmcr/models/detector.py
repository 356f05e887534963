"""What an mmdet detector looks like around its backbone."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from mmdet.models import TwoStageDetector
from mmengine.config import Config
from mmengine.model import is_model_wrapper
from mmengine.registry import init_default_scope
from torch import Tensor, nn

from mmcr.errors import UserError
from mmcr.registry import MODELS

LOOK = 512  # height and width of an image that is only looked at


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


def refitted(model: Mapping, before: Sequence[int], now: Sequence[int]) -> dict:
    """A detector's config whose neck, or heads without one, take other channels.

    Args:
        model: The config.
        before: Channels of the backbone's outputs that it fits.
        now: Of those that it is to fit, as many.

    Raises:
        UserError: Nothing takes the outputs in a way that is known.
    """
    model, before, now = copy.deepcopy(dict(model)), list(before), list(now)
    if before == now:
        return model
    if necks := model.get('neck'):
        takers = [necks if isinstance(necks, Mapping) else necks[0]]
    elif model.get('roi_head'):
        takers = []  # what else is as wide as the backbone, there, is not known
    else:  # heads see the backbone's own outputs, as Mask2Former's
        takers = [part for name, part in model.items() if part and 'head' in name]
    taken = [part.get('in_channels') for part in takers]
    fitting, fitted = dict(zip(before, now)), 0
    for part, theirs in zip(takers, taken):
        kind = tuple if isinstance(theirs, tuple) else list  # some necks mind
        if isinstance(theirs, Sequence) and list(theirs) == before:
            part['in_channels'] = kind(now)
        elif isinstance(theirs, Sequence) and set(theirs) <= fitting.keys():
            part['in_channels'] = kind(fitting[each] for each in theirs)  # any order
        elif theirs == before[-1]:
            part['in_channels'] = now[-1]
        else:
            continue
        fitted += 1
    if len(before) != len(now) or not fitted:
        raise UserError(
            f'A backbone of other channels needs a neck, or a head, that takes its '
            f'outputs, of {before} channels before and {now} now, but what is behind '
            f'it has in_channels={taken[0] if len(taken) == 1 else taken or "unknown"}.'
        )
    return model


@torch.no_grad()
def check_levels(model: nn.Module) -> None:
    """Checks that heads get features of the strides that they have priors for.

    mmdet runs on with others, and learns next to nothing.

    Args:
        model: A detector, wrapped or not, on whatever device. Backbones that are none
            of mmcr's and heads without priors (of DETR's kind) are not looked at.

    Raises:
        UserError: The strides are others, or the neck cannot run.
    """
    model = unwrapped(model)
    backbone = getattr(model, 'backbone', None)
    head = getattr(model, 'rpn_head', None) or getattr(model, 'bbox_head', None)
    priors = getattr(head, 'prior_generator', None)
    priors = getattr(head, 'square_anchor_generator', priors)  # of SABL's kind
    if not hasattr(backbone, 'out_strides') or not hasattr(priors, 'strides'):
        return
    device = next(model.parameters()).device
    given = tuple(
        torch.zeros(1, channels, LOOK // stride, LOOK // stride, device=device)
        for channels, stride in zip(backbone.out_channels, backbone.out_strides)
    )
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        levels = model.neck(given) if model.with_neck else given
    except Exception as error:  # whatever a forward raises
        raise UserError(
            f'The neck must take what the backbone gives, {len(given)} outputs of '
            f'{list(backbone.out_channels)} channels, but it fails with these: '
            f'{type(error).__name__}: {error}. Set out_indices of the backbone and '
            f'in_channels of the neck to fit.'
        ) from error
    finally:
        for module, training in modes:
            module.training = training
    wanted = [  # (w, h)
        stride[0] if isinstance(stride, Sequence) else stride
        for stride in priors.strides
    ]
    # those that the backbone decides; a neck, or a head, may add to them
    found = [LOOK / level.shape[-1] for level in levels][: len(given)]
    if any(not 0.7 < ours / theirs < 1.5 for ours, theirs in zip(found, wanted)):
        raise UserError(
            f'{type(head).__name__} has priors for strides {wanted}, but the neck '
            f'gives it strides {[round(stride) for stride in found]}: the backbone '
            f'gives out strides {list(backbone.out_strides)}. Set its out_indices, '
            f'which count its stages from 0, to those that this detector takes.'
        )


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
