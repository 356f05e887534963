"""Trainings that go on from trained weights."""

import copy
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from mmengine.config import Config, ConfigDict
from mmengine.model import BaseModule

from mmcr.checks import check_number
from mmcr.engine.launch import schedulers_of
from mmcr.errors import UserError
from mmcr.models import reallocate_detector
from mmcr.models.weights.checkpoint import read_weights
from mmcr.models.weights.reallocate import MAY_LACK
from mmcr.models.weights.report import ChainReport
from mmcr.registry import MODELS, config_errors, kind_of
from mmcr.training import ArchSamplingHook, InPlaceDistillationHook
from mmcr.workflow.baseline import Baseline
from mmcr.workflow.recipe import Options, network

WARM_UP = 'LinearLR', 'ConstantLR'
ITERATIONS = 1000  # between validations, where a config does not say


@dataclass(frozen=True)
class Continuation:
    """How trainings go on from trained weights.

    Attributes:
        rate: Learning rate at their start, in those of the user's recipe.
        length: Of the supernet's training, in trainings by that recipe; the baseline
            is trained on for as long.
        tune: Of the training of a path that was taken out of the supernet, likewise.
        sampler: Config of that of the supernet's paths; ``None``: strictly fair.
        distillation: Weight of the loss by which the supernet's largest path teaches
            the others; ``None``: there is none.
    """

    rate: float = 0.5
    length: float = 1.0
    tune: float = 1 / 12
    sampler: Mapping | None = None
    distillation: float | None = None

    def __post_init__(self) -> None:
        for name in ('rate', 'length', 'tune'):
            check_number(f'{name} of warm', value := getattr(self, name))
            if not 0 < value <= 10:
                raise UserError(
                    f'{name} of warm must be above 0 and at most 10, but got {value}.'
                )
        if self.sampler is not None:
            with config_errors(f'sampler of warm: {self.sampler!r}'):
                ArchSamplingHook(sampler=self.sampler)
        if self.distillation is not None:
            InPlaceDistillationHook(self.distillation)

    @classmethod
    def of(cls, options: Options) -> 'Continuation':
        """That of a user's options."""
        names = ', '.join(field.name for field in fields(cls))
        with config_errors(f'warm must be a dict of {names}, but'):
            return cls(**options.warm)


def absolute(checkpoint: str) -> str:
    """The same file wherever a step runs; an address as it is."""
    if '://' in str(checkpoint):
        return checkpoint
    return os.path.abspath(Path(checkpoint).expanduser())


def continued(cfg: Config, length: float, rate: float) -> Config:
    """The config of a training that goes on from trained weights.

    Its learning rate starts at a part of the user's and falls to nothing along half a
    cosine. A warm-up by iterations is kept, as much shorter as the training is.

    Args:
        cfg: Of a training; not changed.
        length: In lengths of that training; an epoch, or an iteration, at the least.
        rate: In learning rates of that training.
    """
    cfg = copy.deepcopy(cfg)
    loop = cfg.train_cfg
    by_epoch = loop.get('max_epochs') is not None
    unit = 'max_epochs' if by_epoch else 'max_iters'
    whole = loop[unit]
    loop[unit] = end = max(1, round(length * whole))
    for hook in cfg.get('custom_hooks') or []:
        for begin in ('begin_epoch', 'begin_iter'):  # of averages of weights
            if hook.get(begin):
                hook[begin] = round(hook[begin] * end / whole)
        if 'switch_epoch' in hook:  # as many last epochs with the other pipeline
            hook['switch_epoch'] = max(0, end - (whole - hook['switch_epoch']))
    loop.val_interval = min(validated_every(loop), end)
    loop.pop('dynamic_intervals', None)
    optimizer = cfg.optim_wrapper.get('optimizer') or {}
    if rate != 1:
        if 'lr' not in optimizer:
            raise UserError(
                'A training that goes on from trained weights has a part of your '
                'learning rate, but the config names none as optim_wrapper.optimizer.'
                'lr. Add it there.'
            )
        optimizer.lr *= rate
    first = [dict(each) for each in schedulers_of(cfg) if _is_warm_up(each)]
    for each in first:
        each['end'] = max(1, round(min(length, 1) * each['end']))
    half_cosine = dict(type='CosineAnnealingLR', T_max=end, end=end, by_epoch=by_epoch)
    if by_epoch:
        half_cosine['convert_to_iter_based'] = True
    cfg.param_scheduler = [*first, half_cosine]
    return cfg


def validated_every(train_cfg: Mapping) -> int:
    """Epochs between validations, or iterations where it does not count by epoch."""
    by_epoch = train_cfg.get('max_epochs') is not None
    return train_cfg.get('val_interval') or (1 if by_epoch else ITERATIONS)


def end_of(cfg: Config) -> int:
    """The epochs of a training, or its iterations where it does not count by epoch."""
    return cfg.train_cfg.get('max_epochs') or cfg.train_cfg.max_iters


def one_after_the_other(cfg: Config, *lengths: float) -> float:
    """The length of trainings that go on, each of whole epochs (`continued`)."""
    ends = (end_of(continued(cfg, length, 1.0)) for length in lengths)
    return sum(ends) / end_of(cfg)


def _is_warm_up(scheduler: Mapping) -> bool:
    whole = not scheduler.get('by_epoch', True) and not scheduler.get('begin')
    return (
        kind_of(scheduler) in WARM_UP
        and whole
        and isinstance(scheduler.get('end'), int)
    )


def started(cfg: Config, checkpoint: str) -> Config:
    """The config of a detector all of which starts from a checkpoint; not changed.

    Args:
        cfg: Of its training.
        checkpoint: Of a detector, of which the backbone may have other numbers of
            blocks.
    """
    cfg = copy.deepcopy(cfg)
    for name in ('init_cfg', 'pretrained'):
        cfg.model.backbone.pop(name, None)
    # also of equal blocks: mmengine's Pretrained reads fewer forms of checkpoints, and
    # leaves what one lacks as it was built
    init = dict(type='mmcr.ReallocatedInit', checkpoint=checkpoint)
    cfg.model.init_cfg = ConfigDict(init)
    return cfg


def unlike(baseline: Baseline, checkpoint: str) -> tuple[list[str], list[ChainReport]]:
    """In what a checkpoint is not one of the detector.

    Returns:
        The weights of neck and heads that it lacks or has in other shapes, and the
        stages of other numbers of blocks.

    Raises:
        CheckpointError: It is not of such a detector, or its backbone is another.
        UserError: A detector of this kind does not start as a checkpoint.
    """
    cfg = network(baseline, {}, Options()).model
    with torch.random.fork_rng(devices=[]):
        detector = MODELS.build(copy.deepcopy(cfg))
    if type(detector).init_weights is not BaseModule.init_weights:
        raise UserError(
            f'A warm start needs a detector that starts as its checkpoint, but '
            f'{type(detector).__name__} draws a part of its weights anew after it has '
            f'loaded one. Give --from none.'
        )
    report = reallocate_detector(read_weights(checkpoint), detector, checkpoint)
    return (
        [name for name in report.kept if not name.endswith(MAY_LACK)],
        [each for each in report.chains if each.source_blocks != each.blocks],
    )
