"""Checks of what users give: a rule is stated once, with the value that breaks it."""

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from math import isfinite
from numbers import Integral, Real

from mmcr.errors import UserError

LARGEST_SIDE = 2**15  # pixels


def is_integer(value: object, at_least: int | None = None) -> bool:
    """Whether it is an integer (a bool is none), and not below a bound."""
    return (
        isinstance(value, Integral)
        and not isinstance(value, bool)
        and (at_least is None or value >= at_least)
    )


def is_number(value: object) -> bool:
    """Whether it is a finite number; a bool is none."""
    return isinstance(value, Real) and not isinstance(value, bool) and isfinite(value)


def is_list(value: object) -> bool:
    """Whether it is a sequence; a string is none."""
    return isinstance(value, Sequence) and not isinstance(value, str)


def check_integer(
    name: str, value: object, at_least: int = 1, error: type[UserError] = UserError
) -> None:
    """Raises `error` unless `value` is an integer of at least so much."""
    if not is_integer(value, at_least):
        raise error(
            f'{name} must be an integer of at least {at_least}, but got {value!r}'
        )


def check_number(name: str, value: object, error: type[UserError] = UserError) -> None:
    """Raises `error` unless `value` is a finite number."""
    if not is_number(value):
        raise error(f'{name} must be a finite number, but got {value!r}')


def check_kind(name: str, value: object, kind: type) -> None:
    """Raises a `UserError` unless `value` is a text (`str`) or a switch (`bool`)."""
    if not isinstance(value, kind):
        rule = 'a text' if kind is str else 'True or False'
        raise UserError(f'{name} must be {rule}, but got {value!r}')


def checked_shape(shape: object) -> tuple[int, int]:
    """Returns a height and a width in pixels as a tuple.

    Raises:
        UserError: `shape` is not two positive integers.
    """
    if (
        not is_list(shape)
        or len(shape) != 2
        or not all(is_integer(s, 1) and s <= LARGEST_SIDE for s in shape)
    ):
        raise UserError(
            f'shape must be a height and a width in pixels, of at most {LARGEST_SIDE}, '
            f'but got {shape!r}'
        )
    return tuple(shape)


def near(name: object, names: Iterable[str]) -> str:
    """The end of a message on a name that is none: those that may have been meant."""
    found = get_close_matches(str(name), list(names))
    return f' (near ones: {", ".join(found)})' if found else ''


LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
#: Of a config, what is a dict or nothing.
DICTS = (
    *('model', 'model.backbone', *LOADERS, *(f'{each}.dataset' for each in LOADERS)),
    *('train_cfg', 'val_cfg', 'test_cfg', 'optim_wrapper', 'default_hooks', 'env_cfg'),
    *('randomness', 'auto_scale_lr', 'model_wrapper_cfg', 'test_cfg.searcher'),
    *('data_preprocessor', 'visualizer', 'log_processor', 'model.data_preprocessor'),
    *(f'{each}.sampler' for each in LOADERS),
)
#: What is a list of dicts, or a dict or nothing where it is no list.
LISTS = ('val_evaluator', 'test_evaluator', 'param_scheduler')
PIPELINES = tuple(f'{each}.dataset.pipeline' for each in LOADERS)
TEXTS = (
    *('default_scope', 'work_dir', 'load_from', 'experiment_name'),
    *(f'{each}.dataset.ann_file' for each in LOADERS),
    *(f'{each}.dataset.data_root' for each in LOADERS),
)
#: What is an integer of at least so much, or nothing.
COUNTS = {
    **{f'train_cfg.{name}': 1 for name in ('max_epochs', 'max_iters', 'val_interval')},
    **{f'{each}.batch_size': 1 for each in LOADERS},
    **{f'{each}.num_workers': 0 for each in LOADERS},
    'randomness.seed': 0,
}
LARGEST_SEED = 2**32 - 1  # numpy's
DEEPEST = 60


def check_sections(cfg: Mapping) -> None:
    """Checks the kinds of a config's sections, which mmengine and mmdet rely on.

    Raises:
        UserError: A section is of another kind, or nested too deeply to be one.
    """
    hooks = cfg.get('default_hooks')
    hooks = [f'default_hooks.{n}' for n in hooks] if isinstance(hooks, Mapping) else []
    for rule, paths, good in (
        ('a dict', (*DICTS, *hooks), _is_dict),
        ('a list of dicts', LISTS, _is_list_of_dicts),
        ('a list of dicts', PIPELINES, _is_list_of_dicts),
        (
            'a list of dicts',
            ('custom_hooks',),
            lambda value: not isinstance(value, Mapping) and _is_list_of_dicts(value),
        ),
        ('a text', TEXTS, lambda value: value is None or isinstance(value, str)),
    ):
        for path in paths:
            value = _at(cfg, path)
            none = path == 'model' and path in cfg and value is None
            if none or not good(value):
                raise UserError(
                    f'{path} of a config must be {rule}, but is {_cut(value)}. '
                    f'Correct it in the config or in --cfg-options.'
                )
    for path, least in COUNTS.items():
        if (value := _at(cfg, path)) is not None:
            check_integer(f'{path} of a config', value, least)
    check_seed('randomness.seed of a config', _at(cfg, 'randomness.seed') or 0)
    _check_depth(cfg)


def check_seed(name: str, seed: object) -> None:
    """Raises a `UserError` unless numpy takes the seed."""
    check_integer(name, seed, at_least=0)
    if seed > LARGEST_SEED:
        raise UserError(f'{name} must be at most {LARGEST_SEED}, but got {seed}')


def _at(cfg: Mapping, path: str) -> object:
    value: object = cfg
    for key in path.split('.'):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _is_dict(value: object) -> bool:
    return value is None or isinstance(value, Mapping)


def _is_list_of_dicts(value: object) -> bool:
    if not is_list(value):
        return _is_dict(value)
    return all(isinstance(entry, Mapping) for entry in value)


def _cut(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f'{text[:200]}...'


def _check_depth(value: object, name: str = 'The config', depth: int = 0) -> None:
    if depth > DEEPEST:
        raise UserError(
            f'{name} must be nested at most {DEEPEST} deep, but it is deeper.'
        )
    if isinstance(value, Mapping):
        for key, entry in value.items():
            _check_depth(entry, name if depth else str(key), depth + 1)
    elif is_list(value):
        for entry in value:
            _check_depth(entry, name, depth + 1)
