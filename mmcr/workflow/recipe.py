"""A detector's config in, the configs of a reallocation out: plain and complete.

`supernet`, `search` and `network` turn a detector's config into that of a step. Data,
schedule, hooks and all of the detector but its backbone and the width of what the neck
takes stay the user's.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from mmengine.config import Config, ConfigDict
from torch import nn

from mmcr.checks import check_number, is_list
from mmcr.engine.launch import EXACT_RESUME, add_hooks, config_text, schedulers_of
from mmcr.errors import UserError
from mmcr.models.detector import refitted
from mmcr.registry import MODELS, is_pretrained
from mmcr.space import Arch, SearchSpace
from mmcr.workflow.baseline import Baseline, build
from mmcr.workflow.datasets import SearchData

RECIPES = ('paper',)
METHODS = ('crnas', 'detnas')
SUPERNET_HOOKS = (
    dict(type='mmcr.ArchSamplingHook', seed=0),
    EXACT_RESUME,
    dict(type='mmcr.PathLogHook'),
)
FAIR = dict(type='mmcr.StrictlyFairSampler')
MOST_SCORED = 5000  # members, that an exhaustive search may have
SCORED_AT_ONCE = 8  # images of archval in a batch, where there are enough
MINIBATCHES = 10


@dataclass(frozen=True)
class Options:
    """What a user may choose of a recipe; also a config's ``reallocation``.

    Attributes:
        width: Of the supernet, in widths of the detector's backbone.
        backbone: More arguments of the supernet's backbone.
        supernet: Changes of the configs that train supernets.
        search: Changes of ``test_cfg`` of the searches.
        warm: How trainings go on from a trained detector (`continuation.Continuation`).
        amp: Whether to train with automatic mixed precision.
    """

    width: float = 0.5
    backbone: Mapping = field(default_factory=dict)
    supernet: Mapping = field(default_factory=dict)
    search: Mapping = field(default_factory=dict)
    warm: Mapping = field(default_factory=dict)
    amp: bool = False

    def __post_init__(self) -> None:
        check_number('width', self.width)
        if self.width <= 0:
            raise UserError(f'width must be above 0, but got {self.width}.')
        for name in ('backbone', 'supernet', 'search', 'warm'):
            if not isinstance(changes := getattr(self, name), Mapping):
                raise UserError(
                    f'{name} of a reallocation must be a dict of changes, but got '
                    f'{changes!r}.'
                )


def supernet(
    baseline: Baseline,
    data: SearchData | None,
    options: Options,
    mode: str = 'stage',
    space: SearchSpace | None = None,
) -> Config:
    """The config that trains a supernet (CR-NAS, Sec. 3.2 and 3.3).

    Half as wide as the detector's backbone unless `options` say otherwise, from random
    weights, nothing frozen, all norms in training mode.

    Args:
        baseline: The detector.
        data: Of the search; None keeps the loaders of the config.
        options: The user's.
        mode: 'stage' or 'operation'.
        space: Of a stage supernet: the members that a search compares. They decide
            which choices it has and which paths are watched while it trains.
    """
    backbone = dict(
        type=baseline.type,
        **narrowed(baseline, options.width),
        supernet=mode,
        share='prefix',
    )
    if hasattr(baseline.network, 'norm_eval'):
        backbone['norm_eval'] = False  # of a network from nothing
    if mode == 'stage':
        archs = dict(baseline=list(baseline.stage_blocks), **watched_paths(space))
        if choices := stage_choices(baseline, options, space):
            backbone['stage_choices'] = choices
    else:
        _check_undilated(baseline)
        backbone['stage_blocks'] = baseline.stage_blocks  # until others are found
        archs = dict(dilation1=1, dilation2=2, dilation3=3)
    backbone.update(_own_arguments(options))
    return _supernet_of(baseline, backbone, data, options, archs, FAIR)


def detnas_supernet(
    baseline: Baseline, data: SearchData | None, options: Options
) -> tuple[Config, Config]:
    """The configs of a DetNAS supernet and of ShuffleNetV2, which it competes with.

    Both take the place of the detector's backbone, with as many outputs. Paths are
    drawn uniformly, as published (DetNAS, Sec. 3).
    """
    backbone = dict(type='mmcr.DetNASNet', net='300M', supernet='block')
    backbone.update(options.backbone)
    if 'out_indices' not in backbone:
        indices = _outputs_of_strides(backbone, baseline.network.out_strides)
        if len(indices) < 4:
            backbone['out_indices'] = indices
    archs = dict(all_3x3=0, all_5x5=1, all_7x7=2, all_xception=3)
    supernet_cfg = _supernet_of(baseline, backbone, data, options, archs, None)
    net = build(backbone)
    zeros = Arch({choice.name: 0 for choice in net.space.choices})
    plain_cfg = copy.deepcopy(baseline.cfg)
    plain_cfg.model.backbone = ConfigDict(net.arch_cfg(zeros))
    _fit_neck(plain_cfg.model, baseline.network, net)
    set_amp(plain_cfg, options)
    return supernet_cfg, plain_cfg


def _outputs_of_strides(backbone: Mapping, wanted: Sequence[int]) -> tuple[int, ...]:
    """The outputs of a network that have the strides of another's."""
    strides = build(backbone).out_strides
    if not set(wanted) <= set(strides) or len(set(wanted)) < len(wanted):
        raise UserError(
            f"The outputs of DetNAS's networks have strides {list(strides)}, but those "
            f"of the detector's backbone have {list(wanted)}. Take a detector with "
            f'such outputs, or search its own backbone (--method crnas).'
        )
    return tuple(strides.index(stride) for stride in wanted)


def _supernet_of(
    baseline: Baseline,
    backbone: dict,
    data: SearchData | None,
    options: Options,
    archs: Mapping,
    sampler: Mapping | None,
) -> Config:
    cfg = copy.deepcopy(baseline.cfg)
    cfg.model.backbone = ConfigDict(backbone)
    _fit_neck(cfg.model, baseline.network, build(backbone))
    sampling, *others = copy.deepcopy(SUPERNET_HOOKS)
    if sampler is not None:
        sampling['sampler'] = dict(sampler)
    own = cfg.get('custom_hooks') or ()
    cfg.custom_hooks = [sampling, *others]
    add_hooks(cfg, *own)
    cfg.model_wrapper_cfg = dict(type='mmcr.ActivePathDDP')
    cfg.val_cfg = dict(type='mmcr.ArchValLoop', archs=archs)
    if data is not None:
        cfg.train_dataloader = data.train_dataloader
        archval = copy.deepcopy(data.archval_dataloader)
        # at least as many batches as mini-batches (Sec. 3.3), also for many processes
        most = max(1, min(SCORED_AT_ONCE, data.archval_images // MINIBATCHES))
        archval['batch_size'] = max(archval.get('batch_size', 1), most)
        cfg.val_dataloader = archval
        cfg.test_dataloader = copy.deepcopy(archval)
        cfg.val_evaluator = data.evaluator
        cfg.test_evaluator = copy.deepcopy(data.evaluator)
        if 'pipeline' not in data.train_dataloader['dataset']:  # wrapped
            cfg.val_cfg.calibration_dataloader = dict(
                data.calibration_dataloader, batch_size=archval['batch_size']
            )
    cfg.test_cfg = dict(type='TestLoop')
    _drop_monitors(cfg, next(iter(archs)))
    kept_in_place(cfg)
    set_amp(cfg, options)
    return merged(cfg, options.supernet)


def search(
    supernet_cfg: Config,
    baseline: Baseline,
    options: Options,
    searcher: Mapping,
    budget: object = None,
) -> Config:
    """The config that searches a trained supernet.

    Args:
        supernet_cfg: What `supernet` gave.
        baseline: The detector.
        options: The user's.
        searcher: Config of the method.
        budget: What the networks may cost, as `mmcr.cost` takes it; None where the
            choices cost nothing.
    """
    cfg = copy.deepcopy(supernet_cfg)
    loop = dict(type='mmcr.ArchSearchLoop', searcher=dict(searcher))
    if budget is not None:
        loop['budget'] = budget
    if final := final_backbone(baseline, cfg.model.backbone):
        loop['final_backbone'] = final
    for name in ('calibration_dataloader', 'calibration_images', 'num_minibatches'):
        if name in cfg.val_cfg:
            loop[name] = copy.deepcopy(cfg.val_cfg[name])
    cfg.test_cfg = loop
    if options.search:
        cfg = merged(cfg, dict(test_cfg=options.search))
    return cfg


def network(baseline: Baseline, arch_cfg: Mapping, options: Options) -> Config:
    """The user's own config with a backbone that was found.

    It starts from the public weights that the detector starts from
    (`mmcr.ReallocatedInit`). Stages stay free to learn, since their blocks may be new;
    a stem that is frozen stays it. Dilations that the detector has block by block are 1
    where `arch_cfg` names blocks, its own as well.

    Args:
        baseline: The detector.
        arch_cfg: What differs from the detector's backbone: ``stage_blocks``,
            ``dilations``.
        options: The user's.
    """
    cfg = copy.deepcopy(baseline.cfg)
    own = _shape(baseline) if 'stage_blocks' in arch_cfg else baseline.arguments
    backbone = dict(type=baseline.type, **own)
    backbone.update(arch_cfg)
    start = dict(baseline.start)
    if 'frozen_stages' in start:
        start['frozen_stages'] = min(start['frozen_stages'], 0)
    init = start.get('init_cfg')
    if is_pretrained(init):
        start['init_cfg'] = {**init, 'type': 'mmcr.ReallocatedInit'}
    backbone.update(start)
    cfg.model.backbone = ConfigDict(backbone)
    set_amp(cfg, options)
    return cfg


def kept_in_place(cfg: Config) -> None:
    """Lets a step leave its last checkpoint and its log in its own folder.

    There they are looked for; a user's hooks may put them elsewhere, or save none.
    """
    hooks = cfg.get('default_hooks') or {}
    for name in ('checkpoint', 'logger'):
        hook = hooks.get(name)
        if not hook:
            hooks.pop(name, None)  # mmengine's own takes the place
            continue
        for elsewhere in ('out_dir', 'keep_local'):
            hook.pop(elsewhere, None)
        if name == 'checkpoint' and 'save_last' in hook:
            hook.save_last = True


def text_of(cfg: Config, search: str = '', names: Sequence[str] = ()) -> str:
    """A config file; what `names` are of the backbone comes from what was found.

    Args:
        cfg: All of the config.
        search: The step whose ``best_arch.py`` it waits for.
        names: Arguments of the backbone.
    """
    cfg = copy.deepcopy(cfg)
    cfg.pop('work_dir', None)
    if not search:
        return config_text(cfg)
    for name in names:
        cfg.model.backbone.pop(name, None)
    lines = [f"_base_ = '../{search}/best_arch.py'  # what that search has found\n"]
    lines.append(config_text(cfg))
    lines += [f"model['backbone']['{n}'] = _base_.cr_backbone.{n}\n" for n in names]
    return ''.join(lines)


def stage_draft(baseline: Baseline, options: Options) -> tuple[nn.Module, dict]:
    """A stage supernet without weights whose space holds the baseline.

    Returns:
        The backbone, and what gives its networks the detector's width.
    """
    backbone = dict(
        type=baseline.type,
        **narrowed(baseline, options.width),
        supernet='stage',
        stage_choices=stage_choices(baseline, options),
    )
    backbone.update(_own_arguments(options))
    return build(backbone), final_backbone(baseline, backbone)


def narrowed(baseline: Baseline, width: float) -> dict:
    """The backbone's arguments at a part of its width.

    Raises:
        UserError: It is too narrow for that, or cannot be made narrower.
    """
    arguments = _shape(baseline)
    if width == 1:
        return arguments
    network = baseline.network
    if hasattr(network, 'widen_factor'):
        arguments['widen_factor'] = network.widen_factor * width
        return arguments
    name = 'embed_dims' if hasattr(network, 'embed_dims') else 'base_channels'
    base = getattr(network, name, None)
    if base is None or int(base * width) != base * width:
        raise UserError(
            f'A supernet of {width:g} times the width needs a {baseline.type} of an '
            f'even number of channels ({name}), but got {base}. Give --width 1.'
        )
    arguments[name] = int(base * width)
    if hasattr(network, 'stem_channels'):
        arguments['stem_channels'] = network.stem_channels
    if 'base_width' in arguments:
        arguments['base_width'] = max(1, int(arguments['base_width'] * width))
    narrow = build(dict(arguments, type=baseline.type))
    if narrow.out_channels == network.out_channels:
        raise UserError(
            f'A supernet of {width:g} times the width needs a backbone whose width is '
            f'its base_channels, but that of {baseline.type} is not. Give --width 1.'
        )
    return arguments


def final_backbone(baseline: Baseline, backbone: Mapping) -> dict:
    """What gives a network of the supernet the detector's full width."""
    names = ('base_channels', 'widen_factor', 'base_width', 'embed_dims')
    full = {name: getattr(baseline.network, name, None) for name in names}
    return {
        name: full[name]
        for name in names
        if name in backbone and backbone[name] != full[name]
    }


def watched_paths(space: SearchSpace) -> dict[str, list[int]]:
    """The first and the last member by where in the depth their blocks lie, by name."""

    def depth(arch: Arch) -> float:
        blocks = list(arch.values())
        return sum(i * n for i, n in enumerate(blocks)) / sum(blocks)

    members = sorted(space, key=depth)
    return dict(shallow=list(members[0].values()), deep=list(members[-1].values()))


def merged(cfg: Config, changes: Mapping) -> Config:
    """The config with changes as a child config writes them (``_delete_`` works)."""
    if not changes:
        return cfg
    try:
        return Config(Config._merge_a_into_b(dict(changes), cfg._cfg_dict))
    except (KeyError, TypeError) as error:
        raise UserError(
            f'The changes of a reallocation must be such as a child config makes, but '
            f'got {dict(changes)}: {error}'
        ) from error


def stage_choices(
    baseline: Baseline, options: Options, space: SearchSpace | None = None
) -> dict[str, tuple[int, ...]]:
    """Where a stage supernet's choices differ from the paper's.

    The baseline's own numbers of blocks are always among them. Of the paper's, those
    are kept that some member of `space` takes. A supernet of bottlenecks keeps all, as
    the paper's, which serves networks of any number of blocks.

    Raises:
        UserError: The user's choices lack the baseline's own.
    """

    def offered(**more) -> dict[str, tuple[int, ...]]:
        backbone = dict(type=baseline.type, **_shape(baseline), supernet='stage')
        space = build(dict(backbone, share='prefix', **more)).space
        return {choice.name: choice.values for choice in space.choices}

    papers, users = offered(), options.backbone.get('stage_choices') or {}
    chosen = offered(stage_choices=users) if users else dict(papers)
    for name, own in zip(papers, baseline.stage_blocks):
        if own not in chosen[name]:
            if name in users:
                raise UserError(
                    f"stage_choices must have the detector's own numbers of blocks, "
                    f'which others are compared with, but those of {name} are '
                    f'{chosen[name]}. Add {own}.'
                )
            chosen[name] = tuple(sorted({*chosen[name], own}))
    expansion = getattr(getattr(baseline.network, 'block', None), 'expansion', 1)
    if space is not None and expansion == 1:
        chosen = {choice.name: choice.values for choice in space.reachable()}
    return {name: v for name, v in chosen.items() if v != papers[name]}


def _own_arguments(options: Options) -> dict:
    """The user's for the supernet's backbone; `stage_choices` knows the others."""
    return {k: v for k, v in options.backbone.items() if k != 'stage_choices'}


def _check_undilated(baseline: Baseline) -> None:
    dilations = _shape(baseline).get('dilations', ())
    if any(dilation != 1 for dilation in dilations):
        raise UserError(
            f'An operation supernet chooses the dilation of every block, so that a '
            f'detector must leave them at 1, but its backbone has dilations='
            f'{tuple(dilations)}. Give it without them, which costs the same, or '
            f'search numbers of blocks alone (--no-dilations).'
        )


def _shape(baseline: Baseline) -> dict:
    """The backbone's arguments but for its blocks, which a search chooses."""
    shape = {k: v for k, v in baseline.arguments.items() if k != 'stage_blocks'}
    if baseline.dilates_by_block:
        dilations = tuple(1 if is_list(d) else d for d in shape.pop('dilations'))
        if set(dilations) != {1}:
            shape['dilations'] = dilations
    return shape


def _fit_neck(model: ConfigDict, full: nn.Module, narrow: nn.Module) -> None:
    """The neck, or what takes the outputs without one, takes what the supernet gives.

    Raises:
        UserError: Nothing takes the outputs in a way that is known.
    """
    ours = narrow.out_channels
    try:
        model.update(refitted(model, full.out_channels, ours))
        if ours != full.out_channels and (necks := model.get('neck')):
            first = necks if isinstance(necks, Mapping) else necks[0]
            with torch.random.fork_rng(devices=[]), torch.device('meta'):
                MODELS.build(copy.deepcopy(first))
    except Exception as error:  # whatever a constructor raises
        said = ': '.join(filter(None, (type(error).__name__, str(error))))
        raise UserError(
            f'A supernet of another width must fit the detector, but its neck does '
            f'not ({said}). Give --width 1.'
        ) from error


def set_amp(cfg: Config, options: Options) -> None:
    """Trains with automatic mixed precision where `options` say so."""
    if options.amp:
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')


def _drop_monitors(cfg: Config, path: str) -> None:
    """What waits for a metric of the detector finds none in a supernet's.

    Args:
        cfg: Of the supernet; changed.
        path: Of the watched ones, that a scheduler waits for instead.
    """
    for each in schedulers_of(cfg):
        if monitor := each.get('monitor'):
            each['monitor'] = f'archval/{path}/{monitor.rpartition("/")[2]}'
    checkpoint = (cfg.get('default_hooks') or {}).get('checkpoint')
    if isinstance(checkpoint, Mapping):
        checkpoint.pop('save_best', None)
        checkpoint.pop('rule', None)
    cfg.custom_hooks = [
        hook
        for hook in cfg.custom_hooks
        if 'EarlyStopping' not in str(hook.get('type'))
    ]
