"""Networks of one space that start from the same weights."""

import copy
from collections.abc import Mapping

import torch
from mmdet.registry import MODELS
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import Tensor

from mmcr.errors import UserError
from mmcr.registry import HOOKS


@HOOKS.register_module()
class PairedInitHook(Hook):
    """Starts a training from the weights of one large network, by their names.

    Under one seed, networks with other numbers of blocks begin with other weights
    throughout, neck and heads included: what is drawn for a block shifts all that is
    drawn after it. With this hook each takes its part of a network that has all their
    blocks, initialised under the run's seed, so that what differs between networks of
    one seed is their architecture.

    A training that loads or resumes a checkpoint keeps the weights of that.

    Args:
        backbone: In what the large network's backbone differs from the one that is
            trained, such as ``dict(stage_blocks=(10, 10, 11, 11))``.

    Raises:
        UserError: When training starts: the large network lacks a weight of the one
            that is trained, or it has another shape there.
    """

    def __init__(self, backbone: Mapping) -> None:
        self.backbone = backbone

    def before_train(self, runner: Runner) -> None:
        if runner._has_loaded:
            return
        large = self._initialised(runner)
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        own = model.state_dict()
        for name, weight in own.items():
            if name not in large or large[name].shape != weight.shape:
                raise UserError(
                    f'PairedInitHook needs a network that has all blocks of the one '
                    f'that is trained, but with backbone={dict(self.backbone)} it '
                    f'lacks {name} of shape {tuple(weight.shape)}. Give it as many '
                    f'blocks in every stage.'
                )
        model.load_state_dict({name: large[name] for name in own})

    def _initialised(self, runner: Runner) -> dict[str, Tensor]:
        cfg = copy.deepcopy(runner.cfg.model)
        cfg.backbone.update(self.backbone)
        with torch.random.fork_rng(devices=[]):  # the run's own stream goes on
            torch.manual_seed(runner.seed)
            detector = MODELS.build(cfg)
            detector.init_weights()
        return detector.state_dict()
