"""Neck and heads run as in training, to calibrate the batch norms they have."""

import copy

import torch
from torch import Tensor, nn

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
    either way, and need no boxes. Losses that wait for other processes (of CenterNet2's
    and Sparse R-CNN's heads) are not made for this: ranks may have unequally many
    batches.

    Args:
        model: The detector, unwrapped.
        index: Of the batch; decides the samples, for all architectures alike.
        data: The batch, preprocessed.
        features: What the backbone made of it.

    Raises:
        UserError: RoIs are to be sampled, but the images come without boxes or masks,
            a mask head with norms gets no RoI, or the RoI head's losses change it.
    """
    device = data['inputs'].device
    devices = [device] if device.type == 'cuda' else []
    with backbone_returns(model, features), torch.random.fork_rng(devices):
        torch.manual_seed(index)
        if has_rois(model):
            _check_annotations(model, data['data_samples'])
            _check_roi_head(model.roi_head, data['data_samples'])
            # some losses change the samples, and the next architecture needs them
            model(data['inputs'], copy.deepcopy(data['data_samples']), mode='loss')
        else:
            model(data['inputs'], data['data_samples'], mode='tensor')


def _check_annotations(model: nn.Module, samples: list) -> None:
    needed = ['bboxes'] + ['masks'] * model.with_mask
    for name in needed:
        if not all(name in sample.gt_instances for sample in samples):
            option = dict(bboxes='with_bbox', masks='with_mask')[name]
            raise UserError(
                f'Neck or heads have batch norms, which are calibrated on RoIs as in '
                f'training, so calibration images need their {name}: let the pipeline '
                f'of archval or of calibration_dataloader have '
                f"dict(type='LoadAnnotations', {option}=True)."
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
