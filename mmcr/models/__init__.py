"""What runs: searchable backbones, their supernets, weight inheritance."""

from mmcr.models import backbones
from mmcr.models.backbones import *  # noqa: F403, listed in their own room
from mmcr.models.searchable import SearchableBackbone
from mmcr.models.weights.inherit import inherit_weights, path_state_dict
from mmcr.models.weights.reallocate import (
    ReallocatedInit,
    reallocate,
    reallocate_detector,
)

__all__ = [
    *backbones.__all__,
    'ReallocatedInit',
    'SearchableBackbone',
    'inherit_weights',
    'path_state_dict',
    'reallocate',
    'reallocate_detector',
]
