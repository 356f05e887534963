"""A detector's backbone, as a reallocation understands it."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from mmdet.registry import MODELS as MMDET_MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import nn

from mmcr.checks import is_list
from mmcr.errors import UserError
from mmcr.models.searchable import SearchableBackbone
from mmcr.registry import MODELS, config_errors, is_pretrained, kind_of

#: What says how a backbone starts and what of it stays as it started.
START = ('init_cfg', 'pretrained', 'convert_weights', 'frozen_stages', 'norm_eval')
LAYER_DECAY = 'LearningRateDecayOptimizerConstructor'  # mmdet's


@dataclass(frozen=True)
class Baseline:
    """A detector as a recipe understands it.

    Attributes:
        cfg: The detector's config, plain, without a start from another detector.
        kind: The searchable backbone that takes the place of the detector's own.
        arguments: Of the backbone, those that differ from the defaults, `START` left
            out.
        start: The arguments of `START` that the config has.
        network: The backbone without weights, as `kind`.
        checkpoint: Of a whole detector that the config starts from, by ``load_from``
            or the ``init_cfg`` of the model; ``None``: there is none.
    """

    cfg: Config
    kind: type[SearchableBackbone]
    arguments: dict
    start: dict
    network: nn.Module = field(repr=False)
    checkpoint: str | None = None

    @property
    def type(self) -> str:
        """Name of `kind` in configs."""
        return f'mmcr.{self.kind.__name__}'

    @property
    def dilates_by_block(self) -> bool:
        """Whether it has dilations block by block, as mmcr's searches find them."""
        return any(is_list(each) for each in self.arguments.get('dilations', ()))

    @property
    def stage_blocks(self) -> tuple[int, ...]:
        """Blocks of each searched stage."""
        return tuple(self.network.stage_blocks)


def understand(cfg: Config) -> Baseline:
    """Reads a detector's config as the baseline of a reallocation.

    Raises:
        UserError: Its backbone is none that mmcr can search, or a supernet already,
            or cannot be built.
    """
    cfg = plain(cfg)
    init_default_scope(cfg.get('default_scope') or 'mmdet')
    backbone = dict(cfg.get('model', {}).get('backbone') or {})
    if not backbone:
        raise UserError(
            'A reallocation takes the config of a detector, with a backbone as '
            'model.backbone, but this one has none.'
        )
    type_ = str(backbone.pop('type', None))
    package, name = type_.partition('.')[0], type_.rpartition('.')[2]
    kinds = searchable_kinds()
    if package not in ('mmdet', 'mmcr', type_):
        name = f'{package}.{name}'
    if name not in kinds:
        raise UserError(
            f"The backbone must be one that mmcr can search, one of mmdet's "
            f'{", ".join(sorted(k for k in kinds if not k.startswith("CR")))}, but '
            f'this detector has {type_}.'
        )
    kind = kinds[name]
    if backbone.get('supernet') is not None:
        raise UserError(
            'A reallocation starts from a plain detector, but the backbone of this '
            f'config has supernet={backbone["supernet"]!r}: give the config of the '
            f'detector that is to be improved.'
        )
    start = _start({name: backbone.pop(name) for name in START if name in backbone})
    if checkpoint := checkpoint_of(cfg):
        cfg.model.pop('init_cfg', None)
    cfg.load_from, cfg.resume = None, False
    optimized = cfg.get('optim_wrapper') or {}
    scope, _, constructor = str(optimized.get('constructor')).rpartition('.')
    if constructor == LAYER_DECAY and scope.partition('.')[0] in ('', 'mmdet'):
        optimized['constructor'] = 'mmcr.LayerDecay'  # the same, of any blocks
    if kind.__name__ != name:
        backbone = {**kind.mmdets_defaults, **backbone}
    arguments = _normalised(kind, backbone)
    network = build(dict(arguments, type=f'mmcr.{kind.__name__}'))
    if network.supernet is None and not hasattr(network, 'stage_blocks'):
        raise UserError(f'{name} has no stages whose blocks could be reallocated.')
    return Baseline(cfg, kind, arguments, start, network, checkpoint)


def _start(given: Mapping) -> dict:
    """With public weights in one form of the three that mmdet takes."""
    start = dict(given)
    init = start.get('init_cfg')
    if path := start.pop('pretrained', None):
        start['init_cfg'] = dict(type='Pretrained', checkpoint=path)
    elif is_list(init):  # others would fill what these weights lack, which is refused
        public = [each for each in init if is_pretrained(each)]
        start['init_cfg'] = public[-1] if public else init
    return start


def checkpoint_of(cfg: Config) -> str | None:
    """What all of a config's detector starts from; ``None``: nothing."""
    init = cfg.get('model', {}).get('init_cfg')
    reallocated = isinstance(init, Mapping) and kind_of(init) == 'ReallocatedInit'
    if not reallocated and not is_pretrained(init):
        init = {}
    return cfg.get('load_from') or init.get('checkpoint')


def searchable_kinds() -> dict[str, type[SearchableBackbone]]:
    """The searchable backbones by their own and the same network's name elsewhere."""
    MODELS.import_from_location()
    kinds = {}
    for kind in MODELS.module_dict.values():
        if isinstance(kind, type) and issubclass(kind, SearchableBackbone):
            ancestors = [c.__name__ for c in kind.__mro__]
            theirs = [n for n in ancestors if n in MMDET_MODELS.module_dict]
            if theirs := [kind.original] if kind.original else theirs:
                kinds[kind.__name__] = kind
                kinds[theirs[0]] = kind
    return kinds


def plain(cfg: Config) -> Config:
    """The config without lazy objects: classes and functions become their names."""

    def of(value: object) -> object:
        if isinstance(value, Mapping):
            return {key: of(entry) for key, entry in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(map(of, value))
        if isinstance(value, type) or inspect.isroutine(value):
            return f'{value.__module__}.{value.__qualname__}'
        return value

    return Config(of(cfg.to_dict()), filename=cfg.filename)


def build(backbone: Mapping) -> nn.Module:
    """A backbone without weights, of its config.

    Raises:
        UserError: It cannot be built.
    """
    with config_errors(f'The backbone must be one that {backbone.get("type")} builds'):
        with torch.random.fork_rng(devices=[]), torch.device('meta'):
            return MODELS.build(dict(backbone))


def _normalised(kind: type, arguments: Mapping) -> dict:
    """The arguments that say something: not the defaults."""
    defaults = {}
    for ancestor in reversed(kind.__mro__):
        if '__init__' in vars(ancestor):
            for parameter in inspect.signature(ancestor.__init__).parameters.values():
                if parameter.default is not parameter.empty:
                    defaults[parameter.name] = parameter.default
    kept = {
        name: value
        for name, value in arguments.items()
        if name not in defaults or defaults[name] != value
    }
    # norms that are to be trained, as a network from nothing needs them
    norm = kept.get('norm_cfg')
    if isinstance(norm, Mapping) and norm.get('requires_grad') is False:
        norm, default = (
            {k: v for k, v in (each or {}).items() if k != 'requires_grad'}
            for each in (norm, defaults.get('norm_cfg'))
        )
        kept['norm_cfg'] = norm
        if norm == default:
            del kept['norm_cfg']
    width = kind.width_with(kept.get('base_channels', 64))
    if width and kept.get('base_width') == width:
        del kept['base_width']  # it follows base_channels
    return kept
