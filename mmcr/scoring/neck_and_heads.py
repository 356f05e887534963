"""Neck and heads run as in training, to calibrate the batch norms they have."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, distributed, nn

from mmcr.errors import UserError
from mmcr.models.detector import backbone_returns, has_rois
from mmcr.models.norms import learns_statistics


def neck_and_head_norms(model: nn.Module, backbone: nn.Module) -> list[nn.Module]:
    """The norms of a detector's neck and heads that are in training mode now."""
    own = set(backbone.modules())
    return [m for m in model.modules() if m not in own and learns_statistics(m)]


def run_neck_and_heads(
    model: nn.Module, index: int, data: dict, features: tuple[Tensor, ...]
) -> None:
    """Runs neck and heads on the backbone's outputs for a batch.

    Where an RPN passes RoIs on, by the detector's losses: heads see those that training
    samples, not the many more that a test looks at. Other heads see the whole features
    either way, and most need no boxes. Losses on the way (CenterNet2's, CondInst's)
    average over no other processes: ranks may have unequally many batches.

    Args:
        model: The detector, unwrapped.
        index: Of the batch; decides the samples, for all architectures alike.
        data: The batch, preprocessed.
        features: What the backbone made of it.

    Raises:
        UserError: Boxes or masks are needed, but the images come without; a mask head
            with norms gets no RoI, or the RoI head's losses change it.
    """
    device = data['inputs'].device
    devices = [device] if device.type == 'cuda' else []
    samples = data['data_samples']
    with (
        backbone_returns(model, features),
        torch.random.fork_rng(devices),
        _single_process(),
    ):
        torch.manual_seed(index)
        if has_rois(model):
            _check_annotations(model, samples)
            _check_roi_head(model.roi_head, samples)
            # some losses change the samples, and the next architecture needs them
            model(data['inputs'], copy.deepcopy(samples), mode='loss')
            return
        try:
            model(data['inputs'], copy.deepcopy(samples), mode='tensor')
        except (AttributeError, KeyError):
            _check_annotations(model, samples)  # of CondInst's kind, which needs them
            raise


@contextmanager
def _single_process() -> Iterator[None]:
    """mmengine, mmdet and layers believe that there is no other process."""
    known = distributed.is_initialized
    distributed.is_initialized = lambda: False
    try:
        yield
    finally:
        distributed.is_initialized = known


def _check_annotations(model: nn.Module, samples: list) -> None:
    needed = ['bboxes'] + ['masks'] * getattr(model, 'with_mask', False)
    for name in needed:
        if not all(name in sample.get('gt_instances', ()) for sample in samples):
            option = dict(bboxes='with_bbox', masks='with_mask')[name]
            raise UserError(
                f'Neck or heads have batch norms, which are calibrated as in training, '
                f'so calibration images need their {name}: let the pipeline of archval '
                f"or of calibration_dataloader have dict(type='LoadAnnotations', "
                f'{option}=True).'
            )


def _check_roi_head(roi_head: nn.Module, samples: list) -> None:
    if hasattr(roi_head, 'update_hyperparameters'):
        raise UserError(
            f'Neck or heads have batch norms, which are calibrated by the losses, but '
            f'those of {type(roi_head).__name__} change its thresholds, and so the '
            f'scores of what comes after. Use heads and a neck without batch norm, or '
            f'calibration_images=0.'
        )
    # a norm that sees nothing keeps no statistics, and these would be averaged
    in_masks = roi_head.mask_head.modules() if roi_head.with_mask else ()
    has_norms = any(map(learns_statistics, in_masks))
    if has_norms and not any(len(sample.gt_instances) for sample in samples):
        raise UserError(
            f'The batch norms of the mask head are calibrated on objects, but a batch '
            f'of {len(samples)} calibration images has none: leave such images out by '
            f'filter_cfg=dict(filter_empty_gt=True) of their dataset.'
        )
