"""A detector as people have it: of a config and a checkpoint, to be looked at."""

from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from torch import nn

from mmcr.models.weights.compatibility import load_detector
from mmcr.registry import config_errors


def detector_of(cfg: Config, path: str, checkpoint: str | None) -> nn.Module:
    """The detector in eval mode, ready for gradients of the images.

    Args:
        cfg: Of the detector.
        path: Of the config, for messages.
        checkpoint: Of all of it; ``None``: what the config starts it from.

    Raises:
        UserError: It cannot be built, or the checkpoint is not its own.
    """
    init_default_scope(cfg.get('default_scope') or 'mmdet')
    with config_errors(f'{path} has a detector that cannot be built'):
        detector = revert_sync_batchnorm(MODELS.build(cfg.model))
    if checkpoint is None:
        detector.init_weights()
    else:
        load_detector(detector, checkpoint)
    for module in detector.modules():
        if hasattr(module, 'with_cp'):
            module.with_cp = False  # it has no gradient of the images
    return detector.eval()
