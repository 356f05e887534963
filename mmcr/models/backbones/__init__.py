"""Searchable backbones."""

from mmcr.models.backbones.csp import CRCSPDarknet, CRCSPNeXt
from mmcr.models.backbones.detnas import DetNASInit, DetNASNet
from mmcr.models.backbones.mobilenet_v2 import CRMobileNetV2
from mmcr.models.backbones.regnet import CRRegNet
from mmcr.models.backbones.resnet import CRResNet
from mmcr.models.backbones.resnext import CRResNeXt

__all__ = [
    'CRCSPDarknet',
    'CRCSPNeXt',
    'CRMobileNetV2',
    'CRRegNet',
    'CRResNeXt',
    'CRResNet',
    'DetNASInit',
    'DetNASNet',
]
