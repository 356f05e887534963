"""In-place distillation of a supernet: its largest path teaches the others."""

from collections.abc import Mapping, Sequence

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor, nn

from mmcr.checks import check_number
from mmcr.cost.budget import own_costs
from mmcr.errors import UserError
from mmcr.models.detector import find_backbone, unwrapped
from mmcr.registry import HOOKS
from mmcr.training.samplers import ends

EPSILON = 1e-5  # of a variance, as batch norms have it


@HOOKS.register_module()
class InPlaceDistillationHook(Hook):
    """Draws the features of every path towards those of the largest one.

    As in Universally Slimmable Networks (ICCV 2019), but on features, since a
    detector's heads differ: what the neck makes of the same images by the two paths,
    or the backbone of a detector without a neck. Their distance is one less the
    correlation of a channel over a batch, on average over channels and levels (PKD,
    NeurIPS 2022). It is a further loss, ``loss_distillation``. The largest path costs
    one more forward without gradients, in training mode; its own iterations have none.

    Args:
        weight: Of the loss.

    Raises:
        UserError: `weight` is not above 0; when training starts: the backbone is no
            supernet, or its choices cost nothing, so that no path is the largest.
    """

    def __init__(self, weight: float = 1.0) -> None:
        check_number('weight of a distillation', weight)
        if weight <= 0:
            raise UserError(
                f'weight of a distillation must be above 0, but got {weight}.'
            )
        self.weight = weight

    def before_train(self, runner: Runner) -> None:
        backbone, model = find_backbone(runner.model), unwrapped(runner.model)
        _, self.largest = ends(own_costs(backbone))
        self.neck, self.levels = getattr(model, 'neck', None), None
        self.handles = [
            (self.neck or backbone).register_forward_hook(self._keep),
            # inside any wrapper: that of a distributed run sees the loss
            model.register_forward_hook(self._taught, with_kwargs=True),
        ]

    def after_train(self, runner: Runner) -> None:
        for handle in self.handles:
            handle.remove()

    def _keep(self, part: nn.Module, inputs: tuple, levels: Sequence[Tensor]) -> None:
        if torch.is_grad_enabled():
            self.levels = levels

    def _taught(
        self, model: nn.Module, args: tuple, kwargs: Mapping, outputs: object
    ) -> object:
        """The losses of an iteration, and that of the distillation."""
        # of scoring, in between, the backbone is another
        if kwargs.get('mode') != 'loss' or self.levels is None:
            return outputs
        backbone, levels, self.levels = model.backbone, self.levels, None
        if (path := backbone.arch) == self.largest:
            return outputs
        backbone.set_arch(self.largest)
        try:
            with torch.no_grad():
                targets = backbone(kwargs['inputs'])
                targets = self.neck(targets) if self.neck else targets
        finally:
            backbone.set_arch(path)
        distances = [_distance(ours, theirs) for ours, theirs in zip(levels, targets)]
        loss = self.weight * sum(distances) / len(distances)
        return {**outputs, 'loss_distillation': loss}


def _distance(first: Tensor, second: Tensor) -> Tensor:
    """Of features of one shape, N x C x ...: 0 for equal ones, 2 for opposite ones."""
    return (_standardised(first) - _standardised(second)).square().mean() / 2


def _standardised(x: Tensor) -> Tensor:
    """Of mean 0 and variance 1 for each channel, over a batch and its places."""
    x = x.float().transpose(0, 1).flatten(1)
    x = x - x.mean(1, keepdim=True)
    return x * (x.square().mean(1, keepdim=True) + EPSILON).rsqrt()
