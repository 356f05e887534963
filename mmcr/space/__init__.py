"""What can be chosen and what it costs: the search spaces of CR-NAS.

Needs the standard library only.
"""

from mmcr.space.arch import Arch, ArchError
from mmcr.space.cost import Budget, BudgetError
from mmcr.space.presets import (
    RESNET_STAGES,
    blocks_cost,
    dilation_arch,
    dilations_of,
    operation_space,
    resnet_stage_space,
    stage_arch,
    stage_blocks_of,
)
from mmcr.space.space import Choice, SearchSpace
from mmcr.space.zoo import PUBLISHED, Published

__all__ = [
    'PUBLISHED',
    'RESNET_STAGES',
    'Arch',
    'ArchError',
    'Budget',
    'BudgetError',
    'Choice',
    'Published',
    'SearchSpace',
    'blocks_cost',
    'dilation_arch',
    'dilations_of',
    'operation_space',
    'resnet_stage_space',
    'stage_arch',
    'stage_blocks_of',
]
