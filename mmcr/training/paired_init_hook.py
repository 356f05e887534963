"""Networks of one space that start from the same weights."""

import copy
from collections.abc import Mapping

import torch
from mmdet.registry import MODELS
from mmengine.config import ConfigDict
from mmengine.dist import broadcast
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor

from mmcr.errors import UserError
from mmcr.models.detector import unwrapped
from mmcr.registry import HOOKS


@HOOKS.register_module()
class PairedInitHook(Hook):
    """Starts a training from the weights of one large network, by their names.

    Otherwise networks with other numbers of blocks begin with other weights even under
    one seed, in neck and heads, too. Here each takes its part of a network that has
    all their blocks, initialised under the run's seed. A training that loads or
    resumes a checkpoint keeps the weights of that.

    Args:
        backbone: In what the large network's backbone differs from the one that is
            trained, such as ``dict(stage_blocks=(10, 10, 11, 11))``; with
            ``_delete_=True`` all of it.

    Raises:
        UserError: `backbone` is no mapping; when training starts: with it there is
            no such network, or one that lacks a weight of the one that is trained.
    """

    priority = 'VERY_HIGH'  # what other hooks copy from the model comes after

    def __init__(self, backbone: Mapping) -> None:
        if not isinstance(backbone, Mapping):
            raise UserError(
                f'PairedInitHook takes as backbone the arguments of the large network, '
                f'such as dict(stage_blocks=(10, 10, 11, 11)), but got {backbone!r}.'
            )
        self.backbone = dict(backbone)

    def before_train(self, runner: Runner) -> None:
        if runner._has_loaded:
            return
        large = self._large(runner)
        model = unwrapped(runner.model)
        own = model.state_dict()
        for name, weight in own.items():
            if name not in large or large[name].shape != weight.shape:
                raise UserError(
                    f'PairedInitHook needs a network with all weights of the one that '
                    f'is trained, but with backbone={self.backbone} it has no {name} '
                    f'of shape {tuple(weight.shape)}. Give it at least as many blocks '
                    f'in every stage, and leave all else as it is.'
                )
        model.load_state_dict({name: large[name] for name in own})
        # as after mmengine's own initialisation: ranks may have seeds of their own
        for weight in own.values():
            broadcast(weight)

    def _large(self, runner: Runner) -> dict[str, Tensor]:
        """Weights of the large network."""
        cfg = copy.deepcopy(runner.cfg.get('model'))
        if not isinstance(cfg, ConfigDict) or 'backbone' not in cfg:
            raise UserError(
                'PairedInitHook needs a config whose model has a backbone, but this '
                'one has none. Leave the hook out of it.'
            )
        large = dict(self.backbone)
        if large.pop('_delete_', False):
            cfg.backbone.clear()
        cfg.backbone.update(large)
        with torch.random.fork_rng(devices=[]):  # the run's own stream goes on
            torch.default_generator.manual_seed(runner.seed)
            try:
                detector = MODELS.build(cfg)
            except (TypeError, UserError) as error:  # an argument that it does not have
                raise UserError(
                    f'PairedInitHook takes as backbone the arguments of the large '
                    f'network, but with backbone={self.backbone} it cannot be built: '
                    f'{error}'
                ) from None
            detector.init_weights()
        runner.logger.info(
            f'PairedInitHook: this run starts with its part of a network with '
            f'backbone={self.backbone}.'
        )
        return detector.state_dict()
