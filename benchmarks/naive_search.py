"""The loop that search_speed.py compares with: candidates one at a time.

It does for a detector what DetNAS and MMRazor's search loops do, with the parts of
mmengine and mmdet as they come: set the path, estimate its batch norms by running
the whole detector in training mode over the calibration images, iterate archval's
loader, let the metric evaluate with pycocotools, next.

Three things differ from those two, so that scores can be compared with ours: the
statistics are plain averages over the images, the metric is not rounded, and the
supernet gets its own statistics back. None of them costs time; reading the
statistics from the norms (as here) is cheaper than MMRazor's hooks, which compute
them a second time.
"""

import torch
from mmengine.evaluator import Evaluator
from mmengine.runner.amp import autocast
from torch import nn
from torch.utils.data import DataLoader

from mmcr.models.norms import learns_statistics
from mmcr.scoring.paths import untouched
from mmcr.space import Arch


class NaiveSearch:
    """Scores one architecture at a time.

    Args:
        model: A detector whose backbone is a supernet.
        evaluator: With one metric, its `dataset_meta` set.
        archval: Loader of the images to score on.
        calibration: Loader of the images for the batch norms.
        score: Name of the metric value to rank by.
        fp16: Whether to run under autocast.
    """

    def __init__(
        self,
        model: nn.Module,
        evaluator: Evaluator,
        archval: DataLoader,
        calibration: DataLoader,
        score: str,
        fp16: bool = False,
    ) -> None:
        self.model = model
        self.evaluator = evaluator
        self.archval = archval
        self.calibration = calibration
        self.score = score
        self.fp16 = fp16

    @torch.no_grad()
    def evaluate(self, archs: list[Arch]) -> list[float]:
        """Scores them, in their order; the model comes back as it was."""
        scores = []
        with untouched(self.model, self.model.backbone), autocast(enabled=self.fp16):
            for arch in archs:
                self.model.backbone.set_arch(arch)
                self.calibrate()
                scores.append(self.validate())
        return scores

    def calibrate(self) -> None:
        """Estimates the statistics of the active path's norms."""
        self.model.train()
        sums: dict[nn.Module, list] = {}
        handles = []

        def collect(norm: nn.Module, inputs: tuple, _) -> None:
            count = len(inputs[0])
            seen = sums.setdefault(norm, [0, 0, 0])
            seen[0] += norm.running_mean.double() * count
            seen[1] += norm.running_var.double() * count
            seen[2] += count

        norms = [m for m in self.model.modules() if learns_statistics(m)]
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.momentum = 1.0  # the running value becomes the batch's own
            handles.append(norm.register_forward_hook(collect))
        for data in self.calibration:
            self.model.test_step(data)
        for handle in handles:
            handle.remove()
        for norm, momentum in zip(norms, momenta):
            norm.momentum = momentum
        for norm, (mean, var, count) in sums.items():
            norm.running_mean.copy_(mean / count)
            norm.running_var.copy_(var / count)

    def validate(self) -> float:
        """The value to rank the active path by."""
        self.model.eval()
        for data in self.archval:
            samples = self.model.val_step(data)
            self.evaluator.process(data_samples=samples, data_batch=data)
        return self.evaluator.evaluate(len(self.archval.dataset))[self.score]
