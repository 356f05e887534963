"""What runs: searchable backbones, their supernets, weight inheritance."""

from mmcr.models.detnas import DetNASInit, DetNASNet
from mmcr.models.mobilenet_v2 import CRMobileNetV2
from mmcr.models.pretrained import ReallocatedInit, reallocate
from mmcr.models.resnet import CRResNet
from mmcr.models.resnext import CRResNeXt
from mmcr.models.searchable import SearchableBackbone, inherit_weights, path_state_dict

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
