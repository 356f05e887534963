"""What runs: searchable backbones, their supernets, weight inheritance."""

from mmcr.models.backbones.detnas import DetNASInit, DetNASNet
from mmcr.models.backbones.mobilenet_v2 import CRMobileNetV2
from mmcr.models.backbones.resnet import CRResNet
from mmcr.models.backbones.resnext import CRResNeXt
from mmcr.models.searchable import SearchableBackbone
from mmcr.models.weights.inherit import inherit_weights, path_state_dict
from mmcr.models.weights.reallocate import ReallocatedInit, reallocate

__all__ = [
    'CRMobileNetV2',
    'CRResNeXt',
    'CRResNet',
    'DetNASInit',
    'DetNASNet',
    'ReallocatedInit',
    'SearchableBackbone',
    'inherit_weights',
    'path_state_dict',
    'reallocate',
]
