"""Batch norm statistics of supernet paths, from scratch (SPOS, DetNAS).

A supernet's running statistics mix all the paths that were trained, so each
path gets its own: the average, over a fixed set of training images, of what
its norms see in training mode. Nothing of the supernet's statistics is left in
them.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import MethodType

import torch
from mmengine.dist import all_reduce
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmcr.engine.paths import Prefix, run_paths
from mmcr.space.arch import Arch


class PathNorms:
    """Means and variances of the norms of every path prefix.

    Only norms that the backbone's own training mode leaves in training mode
    are re-estimated: with `norm_eval` or frozen stages the supernet was trained
    on its stored statistics, and so it is evaluated. Norms outside the backbone
    (of necks and heads, where there are any) keep what training left in them.

    Args:
        backbone: A searchable backbone in supernet mode. Its mode and buffers
            are changed; the caller gives them back (`paths.untouched`).
    """

    def __init__(self, backbone: nn.Module) -> None:
        self.backbone = backbone
        backbone.train()
        self._adapting = {
            module
            for module in backbone.modules()
            if isinstance(module, _BatchNorm)
            and module.training
            and module.track_running_stats
        }
        # one vector per prefix: mean and variance of each norm of its step
        self._statistics: dict[Prefix, Tensor] = {}

    @property
    def needed(self) -> bool:
        """Whether there is a norm to calibrate at all."""
        return bool(self._adapting)

    @torch.no_grad()
    def calibrate(self, archs: Sequence[Arch], batches: Iterable[Tensor]) -> None:
        """Estimates the statistics of all prefixes of `archs`.

        Every image counts the same, whatever the batch it comes in. In a
        distributed run each rank gives its own share of the batches, at least
        one, and all get the statistics of the whole.

        Args:
            archs: Complete members of the backbone's space.
            batches: Preprocessed images, each ``N x C x H x W``.
        """
        self.backbone.train()
        sums: dict[Prefix, Tensor] = {}
        num_images = 0

        def measure(prefix: Prefix, step, x: Tensor) -> Tensor:
            norms = self._norms_of(step)
            for norm in norms:
                norm.reset_running_stats()
                norm.momentum = 1.0  # the running value becomes the batch's own
            y = step.run(x)
            if norms:
                # float64 makes the sum independent of the order of the batches
                seen = torch.cat(
                    [
                        value.double()
                        for norm in norms
                        for value in (norm.running_mean, norm.running_var)
                    ]
                )
                sums[prefix] = sums.get(prefix, 0) + seen * len(x)
            return y

        with _unsynchronised(self._adapting):
            for images in batches:
                num_images += len(images)
                for _ in run_paths(self.backbone, archs, images, measure):
                    pass

        sizes = [len(total) for total in sums.values()]
        count = images.new_tensor([num_images], dtype=torch.float64)
        flat = torch.cat([*sums.values(), count])
        all_reduce(flat, 'sum')
        means = (flat[:-1] / flat[-1]).float()
        self._statistics = dict(zip(sums, means.split(sizes)))

    def run_calibrated(self, prefix: Prefix, step, x: Tensor) -> Tensor:
        """Runs a step with the statistics of its prefix, in evaluation mode."""
        norms = self._norms_of(step)
        values = self._statistics[prefix] if norms else None
        for norm in norms:
            size = norm.num_features
            norm.running_mean.copy_(values[:size])
            norm.running_var.copy_(values[size : 2 * size])
            values = values[2 * size :]
        return step.run(x)

    def _norms_of(self, step) -> list[_BatchNorm]:
        return [
            norm for norm in self.backbone.active_norms(step) if norm in self._adapting
        ]


@contextmanager
def _unsynchronised(norms: Iterable[_BatchNorm]) -> Iterator[None]:
    """Norms keep to their own batch, also those that are SyncBN.

    The ranks have different batches and may have unequally many of them:
    waiting for each other would mix them up, and never end.
    """
    for norm in norms:
        norm.forward = MethodType(_BatchNorm.forward, norm)
    try:
        yield
    finally:
        for norm in norms:
            del norm.forward
