"""A warm reallocation: it starts from the detector that the user has trained.

The stage supernet is as wide as the detector and starts as it: on the path of the
detector's own numbers of blocks, and on deeper ones, it computes what the detector
does (`mmcr.ReallocatedInit`). Trained on for a while, any of its paths is a detector
that can be used (`engine.extract`).
"""

import copy
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from mmengine.config import Config, ConfigDict

from mmcr.checks import check_number
from mmcr.errors import UserError
from mmcr.models import reallocate_detector
from mmcr.models.weights.checkpoint import read_weights
from mmcr.models.weights.reallocate import MAY_LACK
from mmcr.registry import MODELS, config_errors
from mmcr.space import SearchSpace
from mmcr.workflow import recipe
from mmcr.workflow.baseline import Baseline, checkpoint_of
from mmcr.workflow.datasets import SearchData
from mmcr.workflow.reallocation import Reallocation
from mmcr.workflow.recipe import Options
from mmcr.workflow.settings import Settings

COLD = 'none'  # in the place of a checkpoint: the config's own is left out
WARM_UP = 'LinearLR', 'ConstantLR'
SEEN = (
    'The checkpoint may have been trained on the images of archval, which favours '
    'architectures like its own: name images that it has not seen by --archval FILE.'
)


@dataclass(frozen=True)
class Continuation:
    """How trainings go on from trained weights.

    Attributes:
        rate: Learning rate at their start, in those of the user's recipe.
        length: Of the supernet's training, in trainings by that recipe; the baseline
            is trained on for as long.
        tune: Of the training of a path that was taken out of the supernet, likewise.
    """

    rate: float = 0.5
    length: float = 1.0
    tune: float = 1 / 12

    def __post_init__(self) -> None:
        for name in ('rate', 'length', 'tune'):
            check_number(f'{name} of warm', value := getattr(self, name))
            if not 0 < value <= 10:
                raise UserError(
                    f'{name} of warm must be above 0 and at most 10, but got {value}.'
                )

    @classmethod
    def of(cls, options: Options) -> 'Continuation':
        """That of a user's options."""
        with config_errors('warm must be a dict of rate, length and tune, but'):
            return cls(**options.warm)


def wanted(cfg: Config, settings: Settings) -> str | None:
    """The checkpoint of the detector that a reallocation is to start from.

    That of the settings, else what the config starts all of the model from, which
    means nothing to DetNAS's networks.
    """
    own = checkpoint_of(cfg) if settings.method == 'crnas' else None
    checkpoint = settings.checkpoint or own
    if checkpoint in (None, COLD):
        return None
    known = '://' in str(checkpoint)
    return checkpoint if known else os.path.abspath(Path(checkpoint).expanduser())


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
    loop[unit] = end = max(1, round(length * loop[unit]))
    loop.val_interval = min(loop.get('val_interval', 1), end)
    loop.pop('dynamic_intervals', None)
    if 'lr' in (optimizer := cfg.optim_wrapper.get('optimizer') or {}):
        optimizer.lr *= rate
    schedulers = cfg.get('param_scheduler') or []
    if isinstance(schedulers, Mapping):
        schedulers = [schedulers]
    first = [dict(each) for each in schedulers if _is_warm_up(each)]
    for each in first:
        each['end'] = max(1, round(min(length, 1) * each['end']))
    half_cosine = dict(type='CosineAnnealingLR', T_max=end, end=end, by_epoch=by_epoch)
    if by_epoch:
        half_cosine['convert_to_iter_based'] = True
    cfg.param_scheduler = [*first, half_cosine]
    return cfg


def _is_warm_up(scheduler: Mapping) -> bool:
    kind = str(scheduler.get('type')).rpartition('.')[2]
    whole = not scheduler.get('by_epoch', True) and not scheduler.get('begin')
    return kind in WARM_UP and whole and isinstance(scheduler.get('end'), int)


def started(cfg: Config, checkpoint: str, reallocated: bool = False) -> Config:
    """The config of a detector all of which starts from a checkpoint; not changed.

    Args:
        cfg: Of its training.
        checkpoint: Of a detector.
        reallocated: Whether that has other numbers of blocks.
    """
    cfg = copy.deepcopy(cfg)
    for name in ('init_cfg', 'pretrained'):
        cfg.model.backbone.pop(name, None)
    kind = 'mmcr.ReallocatedInit' if reallocated else 'Pretrained'
    cfg.model.init_cfg = ConfigDict(type=kind, checkpoint=checkpoint)
    return cfg


def warm_supernet(
    baseline: Baseline,
    data: SearchData | None,
    options: Options,
    checkpoint: str,
    space: SearchSpace | None = None,
) -> Config:
    """The config that trains a stage supernet from a trained detector.

    As wide as the detector, all of its norms in training mode, nothing frozen; its
    numbers of blocks share their first blocks.

    Args:
        baseline: The detector.
        data: As of `recipe.supernet`, and `space`.
        options: The user's; the width is the detector's.
        checkpoint: Of the detector.
    """
    how = Continuation.of(options)
    longer = replace(baseline, cfg=continued(baseline.cfg, how.length, how.rate))
    full = replace(options, width=1.0)
    cfg = recipe.supernet(longer, data, full, 'stage', space)
    return started(cfg, checkpoint, reallocated=True)


def unlike(baseline: Baseline, checkpoint: str) -> list[str]:
    """The weights of neck and heads that a checkpoint lacks, or has in other shapes.

    Raises:
        CheckpointError: It is not of such a detector, or its backbone is another.
    """
    cfg = recipe.network(baseline, {}, Options()).model
    with torch.random.fork_rng(devices=[]):
        detector = MODELS.build(copy.deepcopy(cfg))
    report = reallocate_detector(read_weights(checkpoint), detector, checkpoint)
    return [name for name in report.kept if not name.endswith(MAY_LACK)]


class WarmReallocation(Reallocation):
    """All steps of a reallocation that starts from a trained detector; args as there.

    Args:
        checkpoint: Of the detector, from `wanted`.
    """

    def __init__(
        self,
        cfg: Config,
        name: str,
        work_dir: str | Path,
        settings: Settings,
        checkpoint: str,
    ) -> None:
        if settings.method != 'crnas':
            raise UserError(
                f'A trained detector starts a supernet of its own blocks (crnas), but '
                f'got method={settings.method!r}. Leave it out, or give --from {COLD}.'
            )
        options = replace(settings.options, width=1.0)
        settings = replace(settings, options=options, dilations=False)
        super().__init__(cfg, name, work_dir, settings)
        self.checkpoint, self.how = checkpoint, Continuation.of(options)
        self._check_checkpoint()

    def _check_checkpoint(self) -> None:
        others = unlike(self.baseline, self.checkpoint)
        self.is_whole = not others
        if others and self.settings.checkpoint:
            raise UserError(
                f'--from takes a checkpoint of this detector, but in {self.checkpoint} '
                f'{len(others)} weights of its neck and heads are missing or of '
                f'another shape, such as {others[0]}. Give the config that it was '
                f'trained with.'
            )
        self.notes.append(
            f'Start: the supernet is as wide as your backbone and starts from all of '
            f'{self.checkpoint}; dilations stay as they are.'
        )
        if others:
            self.notes.append(
                f'{len(others)} weights of neck and heads are not in it, or of another '
                f'shape ({others[0]}): these start at random.'
            )
        if not os.path.isfile(str(self.settings.archval)):  # drawn of the training's
            self.notes.append(SEEN)

    def _stage_supernet(self) -> Config:
        return warm_supernet(
            self.baseline,
            self.data,
            self.settings.options,
            self.checkpoint,
            self.space,
        )
