"""Searchable backbones."""

from mmcr.models.backbones.convnext import CRConvNeXt
from mmcr.models.backbones.csp import CRCSPDarknet, CRCSPNeXt
from mmcr.models.backbones.detnas import DetNASInit, DetNASNet
from mmcr.models.backbones.mobilenet_v2 import CRMobileNetV2
from mmcr.models.backbones.regnet import CRRegNet
from mmcr.models.backbones.res2net import CRRes2Net
from mmcr.models.backbones.resnet import CRResNet, CRResNetV1d
from mmcr.models.backbones.resnext import CRResNeXt
from mmcr.models.backbones.swin import CRSwin

__all__ = [
    'CRCSPDarknet',
    'CRCSPNeXt',
    'CRConvNeXt',
    'CRMobileNetV2',
    'CRRegNet',
    'CRRes2Net',
    'CRResNeXt',
    'CRResNet',
    'CRResNetV1d',
    'CRSwin',
    'DetNASInit',
    'DetNASNet',
]
