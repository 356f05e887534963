"""What can be chosen and what it costs: the search spaces of CR-NAS and DetNAS.

Needs the standard library only.
"""

from mmcr.space.arch import Arch, ArchError
from mmcr.space.cost import Budget, BudgetError
from mmcr.space.detnas import (
    DETNAS_NETS,
    DetNASSize,
    block_arch,
    blocks_of,
    detnas_size,
    detnas_space,
)
from mmcr.space.presets import (
    MOBILENETV2_STAGES,
    RESNET_STAGES,
    SWIN_STAGES,
    blocks_around,
    blocks_cost,
    dilation_arch,
    dilations_of,
    mobilenetv2_cost,
    mobilenetv2_stage_blocks,
    mobilenetv2_stage_space,
    operation_space,
    resnet_stage_space,
    stage_arch,
    stage_blocks_of,
)
from mmcr.space.space import Choice, SearchSpace
from mmcr.space.zoo import (
    DETNAS_PUBLISHED,
    PUBLISHED,
    Published,
    PublishedDetNAS,
    PublishedMobileNetV2,
)

__all__ = [
    'DETNAS_NETS',
    'DETNAS_PUBLISHED',
    'MOBILENETV2_STAGES',
    'PUBLISHED',
    'RESNET_STAGES',
    'SWIN_STAGES',
    'Arch',
    'ArchError',
    'Budget',
    'BudgetError',
    'Choice',
    'DetNASSize',
    'Published',
    'PublishedDetNAS',
    'PublishedMobileNetV2',
    'SearchSpace',
    'block_arch',
    'blocks_around',
    'blocks_cost',
    'blocks_of',
    'detnas_size',
    'detnas_space',
    'dilation_arch',
    'dilations_of',
    'mobilenetv2_cost',
    'mobilenetv2_stage_blocks',
    'mobilenetv2_stage_space',
    'operation_space',
    'resnet_stage_space',
    'stage_arch',
    'stage_blocks_of',
]
