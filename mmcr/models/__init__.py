"""What runs: searchable backbones, their supernets, weight inheritance."""

from mmcr.models.resnet import CRResNet
from mmcr.models.searchable import SearchableBackbone, inherit_weights, path_state_dict

__all__ = ['CRResNet', 'SearchableBackbone', 'inherit_weights', 'path_state_dict']
