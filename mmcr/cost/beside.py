"""How long a detector's neck and heads take, which a backbone's table leaves out."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from statistics import median

import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.logging import MMLogger
from mmengine.model import revert_sync_batchnorm
from torch import nn

from mmcr.cost.timing import rounds_of
from mmcr.cost.units import build_fixed
from mmcr.logs import quiet
from mmcr.models.detector import refitted
from mmcr.registry import config_errors
from mmcr.space.table import CostTable

#: What heads want to know of an image.
SIZES = ('img_shape', 'ori_shape', 'pad_shape', 'batch_input_shape')


def with_neck_and_heads(
    table: CostTable,
    detector: Mapping,
    backbone: nn.Module,
    final_backbone: Mapping,
    device: str = 'cpu',
) -> CostTable:
    """A latency table whose sums are those of whole detectors.

    In as many rounds a detector predicts on one image, and its backbone runs alone. The
    median of the differences is added for all networks alike. Neck and heads start
    anew, so that hardly a box is sure enough to be kept; proposals of an RPN are as
    many as in a test.

    Args:
        table: Of `latency_table`, by torch.
        detector: Config of the supernet's.
        backbone: As for the table; `final_backbone` and `device`, too.

    Raises:
        UserError: The detector cannot be built or run.
    """
    about = dict(table.about)
    arch = next(iter(backbone.space))
    net = build_fixed(backbone, final_backbone, arch)
    model = refitted(detector, backbone.out_channels, net.out_channels)
    model['backbone'] = {**backbone.arch_cfg(arch), **final_backbone}
    model['init_cfg'] = None
    rule = f'Neck and heads are timed by a prediction of the {model["type"]}'
    with config_errors(rule), torch.random.fork_rng(devices=[]), torch.inference_mode():
        whole = revert_sync_batchnorm(MODELS.build(model))
        with quiet(MMLogger.get_current_instance(), logging.ERROR):
            whole.init_weights()  # a line of the log for each
        whole.to(device).eval()
        image = torch.randn(1, net.image_channels, *table.shape, device=device)
        known = dict.fromkeys(SIZES, table.shape)
        sample = DetDataSample(metainfo=dict(known, scale_factor=(1.0, 1.0)))
        runs = whole.backbone, partial(whole, data_samples=[sample], mode='predict')
        rounds = rounds_of(
            [partial(run, image) for run in runs],
            *(device, about['rounds'], about['clock']),
        )
    beside = round(max(0.0, 1e3 * median(b - a for a, b in rounds)), 3)
    about.update(detector=model['type'], neck_and_heads=beside)
    return replace(table, fixed=table.fixed + beside, about=about)
