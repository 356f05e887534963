"""Neck and heads run as in training, to calibrate the batch norms they have."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmcr.engine.paths import backbone_returns
from mmcr.errors import UserError


def norms_behind(model: nn.Module, backbone: nn.Module) -> list[_BatchNorm]:
    """The norms of a detector's neck and heads that training leaves in training mode.

    The detector is in evaluation mode afterwards.
    """
    model.train()
    own = set(backbone.modules())
    norms = [
        module
        for module in model.modules()
        if isinstance(module, _BatchNorm)
        and module not in own
        and module.training
        and module.track_running_stats
    ]
    model.eval()
    return norms


class DetectorBatch:
    """Runs what is behind the backbone on the batch that was taken last.

    By the detector's losses: heads see the proposals that training samples, not the
    many more that a test looks at. Samples are drawn alike for all architectures.

    Args:
        model: The detector, unwrapped.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def images(
        self, batches: Iterable[tuple[int, dict]]
    ) -> Iterator[tuple[int, Tensor]]:
        """Index and images of each of the preprocessed batches."""
        for self._index, self._data in batches:
            yield self._index, self._data['inputs']

    def run_behind(self, features: tuple[Tensor, ...]) -> None:
        """Runs neck and heads on the backbone's outputs for the batch.

        Raises:
            UserError: Its images come without boxes to learn from.
        """
        samples = self._data['data_samples']
        if not all('bboxes' in sample.gt_instances for sample in samples):
            raise UserError(
                'Neck or heads have batch norms, which are calibrated as in training, '
                'so calibration images need their boxes: let the pipeline of archval '
                "or of calibration_dataloader have dict(type='LoadAnnotations', "
                'with_bbox=True).'
            )
        with backbone_returns(self.model, features), torch.random.fork_rng():
            torch.manual_seed(self._index)
            self.model(**self._data, mode='loss')
