"""Child registries of mmdet's: ``type='mmcr.CRResNet'`` works in any config.

Also in one whose default scope is another package's, such as mmpretrain.

mmengine imports this file by itself when it meets the scope ``mmcr``, and each
registry imports its room when it is first asked, so no config needs
``custom_imports``.
"""

from mmdet.registry import HOOKS as MMDET_HOOKS
from mmdet.registry import LOOPS as MMDET_LOOPS
from mmdet.registry import METRICS as MMDET_METRICS
from mmdet.registry import MODEL_WRAPPERS as MMDET_MODEL_WRAPPERS
from mmdet.registry import MODELS as MMDET_MODELS
from mmdet.registry import TASK_UTILS as MMDET_TASK_UTILS
from mmdet.registry import WEIGHT_INITIALIZERS as MMDET_WEIGHT_INITIALIZERS
from mmengine.registry import Registry

MODELS = Registry('model', parent=MMDET_MODELS, scope='mmcr', locations=['mmcr.models'])
MODEL_WRAPPERS = Registry(
    'model_wrapper',
    parent=MMDET_MODEL_WRAPPERS,
    scope='mmcr',
    locations=['mmcr.training'],
)
HOOKS = Registry('hook', parent=MMDET_HOOKS, scope='mmcr', locations=['mmcr.training'])
LOOPS = Registry('loop', parent=MMDET_LOOPS, scope='mmcr', locations=['mmcr.engine'])
BUDGETS = Registry('budget', scope='mmcr', locations=['mmcr.cost'])
METRICS = Registry(
    'metric', parent=MMDET_METRICS, scope='mmcr', locations=['mmcr.scoring']
)
TASK_UTILS = Registry(  # searchers and samplers of paths
    'task util',
    parent=MMDET_TASK_UTILS,
    scope='mmcr',
    locations=['mmcr.training', 'mmcr.engine'],
)
WEIGHT_INITIALIZERS = Registry(
    'weight initializer',
    parent=MMDET_WEIGHT_INITIALIZERS,
    scope='mmcr',
    locations=['mmcr.models'],
)

# From a scope beside mmdet's, mmengine looks for mmcr among the root's children.
for _registry in (
    MODELS,
    MODEL_WRAPPERS,
    HOOKS,
    LOOPS,
    METRICS,
    TASK_UTILS,
    WEIGHT_INITIALIZERS,
):
    _registry.root.children[_registry.scope] = _registry
