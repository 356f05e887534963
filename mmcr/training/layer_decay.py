"""Layer-wise decay of the learning rate for blocks that were reallocated."""

import re
from types import SimpleNamespace

from mmdet.engine.optimizers import LearningRateDecayOptimizerConstructor
from torch import nn

from mmcr.errors import UserError
from mmcr.models.weights.names import OPTION
from mmcr.registry import OPTIM_WRAPPER_CONSTRUCTORS


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerDecay(LearningRateDecayOptimizerConstructor):
    """mmdet's constructor, also for supernets and for more blocks in stage 3.

    mmdet counts three blocks of ConvNeXt's stage 3 as a layer, of which `num_layers` of
    ``paramwise_cfg`` says how many there are. Blocks after these are of the last one,
    lest they learn faster than the heads.

    Raises:
        UserError: The backbone is no ConvNeXt, or `num_layers` is missing.
    """

    def add_params(self, params: list[dict], module: nn.Module, **options) -> None:
        kind = type(module.backbone).__name__
        if 'ConvNeXt' not in kind or not self.paramwise_cfg.get('num_layers'):
            raise UserError(
                f'Layer-wise decay is that of a ConvNeXt with num_layers in '
                f'paramwise_cfg, but got a {kind} and {dict(self.paramwise_cfg)}. Leave '
                f'constructor and paramwise_cfg of optim_wrapper out.'
            )
        last = 3 * (self.paramwise_cfg['num_layers'] - 3) - 1

        def earlier(name: re.Match) -> str:
            return f'{name[1]}{min(int(name[2]), last)}.'

        named = [
            (re.sub(r'^(backbone\.stages\.2\.)(\d+)\.', earlier, OPTION.sub('', n)), p)
            for n, p in module.named_parameters()
        ]
        renamed = SimpleNamespace(
            backbone=module.backbone, named_parameters=lambda: named
        )
        super().add_params(params, renamed, **options)
