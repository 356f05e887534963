"""Child registries of mmdet's: ``type='mmcr.CRResNet'`` works in any config.

Also in one whose default scope is another package's, such as mmpretrain.

mmengine imports this file by itself when it meets the scope ``mmcr``, and each
registry imports its room when it is first asked, so no config needs
``custom_imports``.
"""

import inspect
import linecache
import re
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from mmdet.registry import HOOKS as MMDET_HOOKS
from mmdet.registry import LOOPS as MMDET_LOOPS
from mmdet.registry import METRICS as MMDET_METRICS
from mmdet.registry import MODEL_WRAPPERS as MMDET_MODEL_WRAPPERS
from mmdet.registry import MODELS as MMDET_MODELS
from mmdet.registry import OPTIM_WRAPPER_CONSTRUCTORS as MMDET_CONSTRUCTORS
from mmdet.registry import TASK_UTILS as MMDET_TASK_UTILS
from mmdet.registry import WEIGHT_INITIALIZERS as MMDET_WEIGHT_INITIALIZERS
from mmengine.registry import Registry

from mmcr.checks import near
from mmcr.errors import UserError

MODELS = Registry('model', parent=MMDET_MODELS, scope='mmcr', locations=['mmcr.models'])
MODEL_WRAPPERS = Registry(
    'model_wrapper',
    parent=MMDET_MODEL_WRAPPERS,
    scope='mmcr',
    locations=['mmcr.training'],
)
OPTIM_WRAPPER_CONSTRUCTORS = Registry(
    'optimizer wrapper constructor',
    parent=MMDET_CONSTRUCTORS,
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
    OPTIM_WRAPPER_CONSTRUCTORS,
    HOOKS,
    LOOPS,
    METRICS,
    TASK_UTILS,
    WEIGHT_INITIALIZERS,
):
    _registry.root.children[_registry.scope] = _registry


def config_fault(error: Exception) -> str | None:
    """What is wrong with a config, where mmengine fails to build something from it.

    Returns:
        A message; ``None`` where the error came from elsewhere.
    """
    frames = list(traceback.walk_tb(error.__traceback__))
    built, inside, owner = None, False, ''
    for frame, _ in frames:
        module, name = frame.f_globals.get('__name__', ''), frame.f_code.co_name
        if module == 'mmengine.registry.build_functions' and name == 'build_from_cfg':
            built = frame.f_locals
        if module == 'mmengine.model.base_module':  # it initializes weights
            inside, owner = True, type(frame.f_locals.get('self')).__name__
        inside = (
            inside
            or module == 'mmengine.runner.runner'
            and (
                name in ('__init__', 'from_cfg', 'scale_lr')
                or name.startswith('build_')
            )
        )
    asked = (
        frames and frames[-1][0].f_globals.get('__name__') == 'mmengine.config.config'
    )
    if built is None and not inside and not asked:
        return None
    cfg = built['cfg'] if built else None
    kind = cfg.get('type') if isinstance(cfg, dict) else None
    kind = getattr(kind, '__name__', kind) or owner
    if not kind:
        kind = f'{cfg!r:.100}' if built else 'A part of the config'
    return f'{kind} cannot be built as the config has it: {_said(error, built or {})}'


@contextmanager
def config_errors(what: str) -> Iterator[None]:
    """For code that reads a user's config: what it stumbles over is a `UserError`.

    Args:
        what: Begins the message, as 'The searcher must be ..., but'.
    """
    try:
        yield
    except (UserError, OSError):
        raise
    except Exception as error:  # whatever values of a wrong type lead to
        raise UserError(f'{what}: {_said(error, {})}') from error


def _said(error: Exception, built: dict) -> str:
    """An error's own words, the names that may have been meant, and its place."""
    frame, line = list(traceback.walk_tb(error.__traceback__))[-1]
    file = frame.f_code.co_filename
    text = str(error.args[0]) if error.args else linecache.getline(file, line).strip()
    if isinstance(error, UnicodeError | OSError):  # whose first argument is a code
        text = str(error)
    hint = ''
    registry, kind = built.get('registry'), built.get('obj_type')
    if registry is not None and isinstance(kind, str) and built.get('obj_cls') is None:
        text = f'{kind} is not in the registry of {registry.name}s'
        hint = near(kind.rpartition('.')[2], _names(registry))
    elif unknown := re.search(r"unexpected keyword argument '(\w+)'", text):
        hint = near(unknown[1], _arguments(built.get('obj_cls')))
    short = '/'.join(file.split('/')[-3:])
    return f'{type(error).__name__}: {text}{hint} ({short}, line {line}).'


def _names(registry: Registry) -> set[str]:
    family = [registry, *registry.children.values()]
    while registry.parent is not None:
        registry = registry.parent
        family += [registry, *registry.children.values()]
    return {name for each in family for name in each.module_dict}


def _arguments(kind: object) -> set[str]:
    ancestors = kind.__mro__ if inspect.isclass(kind) else ()
    return {
        name
        for each in ancestors
        if '__init__' in vars(each)
        for name in inspect.signature(each.__init__).parameters
    }


def kind_of(cfg: Mapping) -> str:
    """The name of a config's type, which a lazy config has as a class."""
    kind = cfg.get('type', '')
    return getattr(kind, '__name__', None) or str(kind).rpartition('.')[2]


def is_pretrained(init_cfg: object) -> bool:
    """Whether an initializer's config is mmengine's for weights of a file."""
    names = 'Pretrained', 'PretrainedInit'  # as registered, and its class
    return isinstance(init_cfg, Mapping) and kind_of(init_cfg) in names
