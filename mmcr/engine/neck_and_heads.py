"""Neck and heads run as in training, to calibrate the batch norms they have."""

import copy

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmcr.engine.detector_macs import has_rois
from mmcr.engine.paths import backbone_returns
from mmcr.errors import UserError


def norms_behind(model: nn.Module, backbone: nn.Module) -> list[_BatchNorm]:
    """The norms of a detector's neck and heads that are in training mode now."""
    own = set(backbone.modules())
    return [
        module
        for module in model.modules()
        if isinstance(module, _BatchNorm)
        and module not in own
        and module.training
        and module.track_running_stats
    ]


def run_behind(
    model: nn.Module, index: int, data: dict, features: tuple[Tensor, ...]
) -> None:
    """Runs neck and heads on the backbone's outputs for a batch.

    Where an RPN passes RoIs on, by the detector's losses: heads see those that training
    samples, not the many more that a test looks at; the samples are the same for all
    architectures. Other heads see the whole features either way, and need no boxes.
    Losses that wait for other processes (of CenterNet2's and Sparse R-CNN's heads) are
    not made for this: in a distributed run ranks have unequally many batches.

    Args:
        model: The detector, unwrapped.
        index: Of the batch; decides the samples.
        data: The batch, preprocessed.
        features: What the backbone made of it.

    Raises:
        UserError: RoIs are to be sampled, but the images come without boxes or masks.
    """
    device = data['inputs'].device
    devices = [device] if device.type == 'cuda' else []
    with backbone_returns(model, features), torch.random.fork_rng(devices):
        torch.manual_seed(index)
        if has_rois(model):
            _check_annotations(model, data['data_samples'])
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
