"""Image scales of a detector: all sizes in pixels that its pipelines name."""

import copy
from collections.abc import Callable, Mapping, Sequence
from math import ceil

from mmengine.config import Config

from mmcr.checks import is_list, is_number
from mmcr.errors import UserError

#: Arguments of transforms, and of what resizes batches, that are sizes in pixels.
SIZES = {
    *('scale', 'scales', 'img_scale', 'size', 'crop_size', 'max_size', 'border'),
    *('width', 'height', 'random_size_range', 'max_shift_px', 'cutout_shape'),
}
STRIDE = 32  # sizes that are its multiples stay such, as what halves them wants it
LOADERS = 'train_dataloader', 'val_dataloader', 'test_dataloader'
LOOPS = 'val_cfg', 'test_cfg'  # of searches, which calibrate norms
MIXED = 'MultiImageMixDataset'


def at_scale(cfg: Config, factor: float) -> Config:
    """The config of the same detector on images of another scale; not changed.

    Args:
        cfg: Of a training and its test.
        factor: In scales of the config.

    Raises:
        UserError: A loader that is there names no size in pixels.
    """
    before, cfg = cfg, copy.deepcopy(cfg)
    if factor == 1:
        return cfg
    for name in LOADERS:
        if dataset := (before.get(name) or {}).get('dataset'):
            other = rescaled(dataset, factor)
            if other == dataset:
                if rescaled(dataset, 2) != dataset:
                    raise UserError(
                        f'A scale of {factor:g} leaves the sizes of {name} as they '
                        f'are: multiples of {STRIDE} stay such. Give one farther '
                        f'from 1.'
                    )
                raise UserError(
                    f'Image scales are changed where the pipelines name sizes in '
                    f'pixels (Resize with scale=(1333, 800), for example), but those '
                    f'of {name} name none. Add such a step, or leave scales out.'
                )
            cfg[name] = {**before[name], 'dataset': other}
    for name in LOOPS:
        if loader := (before.get(name) or {}).get('calibration_dataloader'):
            dataset = rescaled(loader['dataset'], factor)
            cfg[name]['calibration_dataloader'] = {**loader, 'dataset': dataset}
    _in_hooks(cfg, lambda pipeline: rescaled(pipeline, factor))
    for augment in _batch_augments(cfg):
        augment.update(rescaled(augment, factor))
    return cfg


def sampled_scales(cfg: Config, factors: Sequence[float]) -> Config:
    """The config of a training that draws the scale of every image; not changed.

    Args:
        cfg: Of a training.
        factors: In scales of the config, each equally likely.

    Raises:
        UserError: The training's pipeline names no size in pixels, or mixes images
            that its data set hands to it, or batches are brought to a size of their
            own.
    """
    cfg = copy.deepcopy(cfg)
    for augment in _batch_augments(cfg):
        if rescaled(augment, 2) != augment:
            raise UserError(
                f'A supernet learns several image scales, but {augment.get("type")} in '
                f'batch_augments of the data_preprocessor brings all images to sizes '
                f'of its own. Remove it, or leave scales out.'
            )
    cfg.train_dataloader.dataset = _with_pipelines(
        cfg.train_dataloader.dataset, lambda pipeline: _drawn(pipeline, factors)
    )
    _in_hooks(cfg, lambda pipeline: _drawn(pipeline, factors))
    return cfg


def scaled_shape(shape: tuple[int, int], factor: float, cfg: Config) -> tuple[int, int]:
    """Height and width at a scale as a detector pads it to, in pixels.

    Args:
        shape: Of an image at the config's own scale.
        factor: In scales of the config.
        cfg: The detector's.
    """
    return padded_shape(cfg.model, tuple(_times(side, factor) for side in shape))


def padded_shape(model: Mapping, shape: tuple[int, int]) -> tuple[int, int]:
    """Height and width as a detector pads an image of `shape`, in pixels.

    Args:
        model: Its config.
        shape: Height and width.
    """
    divisor = (model.get('data_preprocessor') or {}).get('pad_size_divisor', 1)
    height, width = (ceil(side / divisor) * divisor for side in shape)
    return height, width


def marked(name: str, factor: float) -> str:
    """The name of what belongs to a scale; of the config's own, the name itself."""
    return name if factor == 1 else f'{name}_x{factor:g}'


def rescaled(obj: object, factor: float) -> object:
    """A part of a config, the sizes of whose transforms are those at another scale.

    A size is a whole number, or lists of such, as the argument of what has a ``type``;
    parts of an image (``crop_type='relative'``) are none.
    """
    if isinstance(obj, Mapping):
        sized = SIZES if 'type' in obj else set()
        if str(obj.get('crop_type', '')).startswith('relative'):
            sized = sized - {'crop_size'}
        return {
            key: _times(value, factor) if key in sized else rescaled(value, factor)
            for key, value in obj.items()
        }
    if is_list(obj):
        return type(obj)(rescaled(each, factor) for each in obj)
    return obj


def _times(size: object, factor: float) -> object:
    if is_list(size):
        return type(size)(_times(each, factor) for each in size)
    if not is_number(size) or size != int(size) or size == -1:  # -1: as it comes
        return size
    unit = STRIDE if size > 0 and size % STRIDE == 0 else 1
    times = round(size * factor / unit) * unit
    return max(unit, times) if size > 0 else times


def _batch_augments(cfg: Config) -> list[Mapping]:
    return (cfg.model.get('data_preprocessor') or {}).get('batch_augments') or []


def _drawn(pipeline: Sequence[Mapping], factors: Sequence[float]) -> list[Mapping]:
    """From the first to the last step with a size, one scale of several for all."""
    ways = [rescaled(list(pipeline), factor) for factor in factors]
    sized = [i for i, step in enumerate(pipeline) if any(w[i] != step for w in ways)]
    if not sized:
        raise UserError(
            'A supernet learns several image scales where the training pipeline names '
            'a size in pixels (Resize with scale=(1333, 800), for example), but this '
            'one names none. Add such a step, or leave scales out.'
        )
    first, end = sized[0], sized[-1] + 1
    choice = dict(type='RandomChoice', transforms=[way[first:end] for way in ways])
    return [*pipeline[:first], choice, *pipeline[end:]]


def _with_pipelines(dataset: Mapping, change: Callable) -> dict:
    """A data set, inside of whatever wraps it, with another pipeline."""
    dataset = dict(dataset)
    if str(dataset.get('type')).endswith(MIXED):
        raise UserError(
            f'A supernet learns several image scales by a choice between pipelines, '
            f'which {MIXED} does not hand other images to. Use its cached form '
            f'(CachedMosaic, CachedMixUp) in a plain data set, or leave scales out.'
        )
    if 'datasets' in dataset:
        inner = [_with_pipelines(each, change) for each in dataset['datasets']]
        dataset['datasets'] = inner
    elif 'dataset' in dataset:
        dataset['dataset'] = _with_pipelines(dataset['dataset'], change)
    else:
        dataset['pipeline'] = change(dataset.get('pipeline') or [])
    return dataset


def _in_hooks(cfg: Config, change: Callable) -> None:
    """What a hook puts in the place of the training's pipeline (RTMDet)."""
    for hook in cfg.get('custom_hooks') or []:
        if hook.get('switch_pipeline'):
            hook['switch_pipeline'] = change(hook['switch_pipeline'])
