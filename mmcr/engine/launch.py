"""From a command line to a Runner: what the tools share."""

import argparse
import copy
import os
import pickle
import re
import time
from collections.abc import Mapping
from importlib.util import find_spec
from math import isfinite
from pathlib import Path

import torch
from mmdet.utils import setup_cache_size_limit_of_dynamo
from mmengine.config import Config, DictAction
from mmengine.device import is_cuda_available
from mmengine.dist import is_distributed
from mmengine.registry import init_default_scope
from mmengine.runner import Runner

from mmcr.checks import check_sections
from mmcr.cli import place
from mmcr.data.checks import check_config
from mmcr.data.coco import forget
from mmcr.data.images import SAMPLE, image_count
from mmcr.errors import UserError
from mmcr.models.backbones.convnext import INSTALL, MISSING
from mmcr.models.detector import check_levels
from mmcr.models.weights.checkpoint import (
    check_finite,
    check_there,
    last_checkpoint,
    only_weights,
    pointed,
    read_training,
)
from mmcr.models.weights.compatibility import check_weights
from mmcr.registry import MODELS, config_errors, kind_of
from mmcr.scoring.coco_ids import accept_any_ids
from mmcr.training.sampling_hook import check_sampled

EXACT_RESUME = dict(type='mmcr.ExactResumeHook')


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments that mmdet's tools have in common."""
    parser.add_argument('--work-dir', type=place, help='where logs and results go')
    add_cfg_options(parser)
    add_check_images(parser)
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='what starts the processes of a distributed run',
    )
    add_trust(parser)
    # torch.distributed.launch passes it to every process
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)


def add_trust(parser: argparse.ArgumentParser) -> None:
    """Adds what lets a checkpoint be more than weights."""
    parser.add_argument(
        '--trust-checkpoint',
        action='store_true',
        help='read checkpoints that hold any objects: such a file can run any command '
        'on this machine when it is read',
    )


class _Settings(DictAction):
    def __call__(self, parser, namespace, values, option_string=None) -> None:
        for text in values:
            key, equals, value = text.partition('=')
            if not (key and equals):
                parser.error(f'{option_string} takes key=value, but got {text!r}.')
            if re.match(r'(dict\(|\{)', value):  # mmengine would not come to an end
                parser.error(
                    f'{option_string} sets a dict entry by entry, as {key}.type=NAME '
                    f'{key}.value=1, but got {text!r}.'
                )
        try:
            super().__call__(parser, namespace, values, option_string)
        except (AssertionError, RecursionError, ValueError):
            parser.error(
                f'{option_string} takes numbers, texts and lists of them, as '
                f'key="[a,b]", whose brackets are closed and not deep, but got '
                f'{" ".join(values)[:200]!r}.'
            )


def add_cfg_options(parser: argparse.ArgumentParser) -> None:
    """Adds what overrides settings of a config."""
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=_Settings,
        help='override settings of the config, as key=value; a list is written '
        'key="[a,b]" or key=a,b, without white space',
    )


def add_check_images(parser: argparse.ArgumentParser) -> None:
    """Adds how many images are decoded before all else."""
    parser.add_argument(
        '--check-images',
        type=image_count,
        default=SAMPLE,
        metavar='all|N|none',
        help='images of each data set to decode at the start, to see that they are '
        'whole and of the annotated size (default: %(default)s)',
    )


def add_shape(parser: argparse.ArgumentParser, height: int, width: int) -> None:
    """Adds the size of the image that costs are counted or measured at."""
    parser.add_argument(
        '--shape',
        type=int,
        nargs='+',
        default=[height, width],
        metavar='PIXELS',
        help='height and width of the image, or one number for both '
        f'(default: {height} {width})',
    )


def shape_of(args: argparse.Namespace) -> tuple[int, ...]:
    """The numbers given with `add_shape`, one standing for both."""
    return tuple(args.shape * (2 if len(args.shape) == 1 else 1))


def read_config(path: str | Path, options: dict | None = None) -> Config:
    """Reads a config file and overrides some of its settings.

    Raises:
        UserError: There is no such file, or it cannot be read.
    """
    if not Path(path).is_file():
        raise UserError(f'The config must be a file, but there is none at {path}.')
    text = Path(path).read_bytes().decode(errors='replace')
    if gone := re.search(r'\$(CR_STEP|CR_ARCH)\b', text):
        raise UserError(
            f'{path} asks for the variable {gone[1]}, which decides nothing any more. '
            f'Write the config of your detector alone and give it to '
            f'tools/reallocate.py, which writes a plain config for every step; an '
            f'architecture that was found is its stage_blocks and dilations.'
        )
    try:
        cfg = Config.fromfile(path)
        cfg.merge_from_dict(options or {})
    # a config is Python: it may raise anything
    except (Exception, SystemExit) as error:
        hint = f'. {INSTALL}' if MISSING and 'mmpretrain' in str(error) else ''
        raise UserError(
            f'{path} is not a config that mmengine can read: '
            f'{type(error).__name__}: {error}{hint}'
        ) from error
    check_sections(dict(cfg.items()))
    for name, loader in cfg.items():
        # both are refused without workers, and mean nothing
        if not name.endswith('_dataloader') or not isinstance(loader, Mapping):
            continue
        if not loader.get('num_workers'):
            loader.pop('persistent_workers', None)
            loader.pop('prefetch_factor', None)
    scope = cfg.get('default_scope') or 'mmdet'
    if not scope.isidentifier() or find_spec(scope) is None:
        raise UserError(
            f'{path} is a config of {scope}, which is not installed: '
            f'pip install --no-deps onedl-{scope} (with torchvision for mmpretrain).'
        )
    return cfg


class _Written(float):
    """A number that Python has no literal of, written so that it can be read."""

    def __repr__(self) -> str:
        return f"float('{float(self)}')"


def config_text(cfg: Config) -> str:
    """A config as a file that `read_config` takes.

    Raises:
        UserError: It has values that no text stands for.
    """

    def of(value: object) -> object:
        if isinstance(value, Mapping):
            return {key: of(entry) for key, entry in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(map(of, value))
        if isinstance(value, float) and not isfinite(value):
            return _Written(value)
        return value

    text = Config(of(cfg.to_dict())).pretty_text
    try:
        Config.fromstring(text, '.py')
    except Exception as error:  # whatever the values' own text raises
        raise UserError(
            f'A step has a config file of its own, so that a config must hold numbers, '
            f'texts, lists and dicts alone, but from what is written of yours comes '
            f'{type(error).__name__}: {error}. Write that value as one of these.'
        ) from error
    return text


def load_config(args: argparse.Namespace) -> Config:
    """The config of a run, with the command line's settings.

    Raises:
        UserError: It cannot be read, or its data do not fit (`check_config`).
    """
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    only_weights(args.trust_checkpoint)
    cfg = read_config(args.config, args.cfg_options)
    cfg.launcher = args.launcher
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = f'./work_dirs/{Path(args.config).stem}'
    # one rank reads the annotations: its message and exit end the others
    if is_first():
        with config_errors(f'The data of {args.config} cannot be understood'):
            print(check_config(cfg, args.check_images), flush=True)
        forget()
    return cfg


def build_runner(cfg: Config) -> Runner:
    """Builds the runner; without CUDA a distributed run goes over gloo.

    Raises:
        UserError: Neck and heads are for other strides than the backbone's.
    """
    accept_any_ids()
    setup_cache_size_limit_of_dynamo()
    import_formatter()
    if cfg.get('launcher', 'none') != 'none' and not is_cuda_available():
        _start_gloo(cfg)
    runner = Runner.from_cfg(cfg)
    check_levels(runner.model)
    return runner


def build_trainer(cfg: Config, resume: str | None = None) -> Runner:
    """Builds a runner that trains: resumed to the bit, its checkpoints whole.

    Args:
        cfg: From `load_config`.
        resume: A checkpoint to go on from; 'auto': where the work dir left off, if
            something was trained there; ``None``: as `cfg` says.

    Raises:
        UserError: There is nothing whole to go on from, or it is of another network;
            the work dir is then as before. Or a supernet's paths are not set.
    """
    if cfg.get('resume'):
        resume = resume or cfg.get('load_from') or 'auto'
    saving = dict(type='CheckpointHook', interval=1)  # mmengine's own
    hooks = dict(cfg.get('default_hooks') or {})
    hooks.setdefault('checkpoint', saving)
    cfg.default_hooks = hooks  # which copies
    if resume == 'auto':
        resume, note = _left_off(cfg)
        if note and is_first():
            print(note, flush=True)
    cfg.resume = resume is not None
    if cfg.resume:
        _check_resumed(cfg, resume)
        cfg.load_from = str(resume)
    elif cfg.get('load_from'):
        check_there(cfg.load_from)
    add_hooks(cfg, EXACT_RESUME)
    for hook in filter(None, [*cfg.default_hooks.values(), *cfg.custom_hooks]):
        if kind_of(hook) == 'CheckpointHook':
            hook['type'] = 'mmcr.WholeCheckpointHook'
    runner = build_runner(cfg)
    check_sampled(runner)
    return runner


def _left_off(cfg: Config) -> tuple[str | Path | None, str]:
    """As `last_checkpoint`; an address where checkpoints do not go to a disk."""
    named, out_dir = pointed(cfg.work_dir), out_dir_of(cfg)
    if '://' in named:
        return named, ''
    if '://' in out_dir:
        return None, (
            f'{cfg.work_dir} has no last_checkpoint that names one in {out_dir}: the '
            f'training begins anew.'
        )
    return last_checkpoint(cfg.work_dir, out_dir, cfg.get('load_from'))


def out_dir_of(cfg: Config) -> str:
    """Where checkpoints go, as mmengine's hook decides it; it may be an address."""
    work_dir = os.path.abspath(cfg.work_dir)
    saving = (cfg.get('default_hooks') or {}).get('checkpoint') or {}
    out_dir = str(saving.get('out_dir') or work_dir)
    if out_dir == work_dir:
        return work_dir
    return os.path.join(out_dir, os.path.basename(work_dir))


def _check_resumed(cfg: Config, path: str | Path) -> None:
    state = read_training(path)
    slots = state.get('optimizer', {}).get('state', {})
    momenta = {
        f'optimizer.{i}.{name}': value
        for i, slot in slots.items()
        for name, value in slot.items()
    }
    for tensors in state['state_dict'], state.get('ema_state_dict', {}), momenta:
        check_finite(tensors, str(path))
    init_default_scope(cfg.get('default_scope') or 'mmdet')
    model = MODELS.build(copy.deepcopy(cfg.model))
    check_weights(state['state_dict'], model, str(path))


def add_hooks(cfg: Config, *hooks: Mapping) -> None:
    """Adds hooks to those that a config has, unless it has one of the type."""
    own = list(cfg.get('custom_hooks') or ())
    kinds = {kind_of(hook) for hook in own}
    cfg.custom_hooks = [*own, *(dict(h) for h in hooks if kind_of(h) not in kinds)]


def schedulers_of(cfg: Config) -> list[Mapping]:
    """The schedulers of a config, which mmengine takes one by one or as a list."""
    schedulers = cfg.get('param_scheduler') or []
    return [schedulers] if isinstance(schedulers, Mapping) else list(schedulers)


def is_first() -> bool:
    """Whether this process is the only one or rank 0, before or after their start."""
    ranks = map(os.environ.get, ('RANK', 'OMPI_COMM_WORLD_RANK', 'SLURM_PROCID'))
    return next(filter(None, ranks), '0') == '0'


def import_formatter(seconds: float = 10.0) -> None:
    """Imports yapf, with which mmengine writes configs, beside other processes.

    yapf's first import on a machine leaves its tables in the user's cache, under their
    final name before they are whole: of processes that start together one may read
    half a file.

    Raises:
        UserError: The file stays damaged for so many seconds.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            import yapf  # noqa: F401

            return
        except (EOFError, pickle.UnpicklingError) as error:
            if time.monotonic() > deadline:
                raise UserError(
                    f'The tables that yapf keeps in the cache folder of your user '
                    f'(YAPF in ~/.cache on Linux) must be whole, but reading them '
                    f'fails: {error}. Remove that folder.'
                ) from error
            time.sleep(0.1)


def _start_gloo(cfg: Config) -> None:
    # mmengine's own start and wrapper ask for a CUDA device whatever the backend
    if cfg.launcher != 'pytorch':
        raise UserError(
            f'Without CUDA only the launcher pytorch (torchrun) can start '
            f'a distributed run, but got {cfg.launcher}.'
        )
    if not is_distributed():
        torch.distributed.init_process_group('gloo')
    cfg.setdefault('model_wrapper_cfg', dict(type='MMDistributedDataParallel'))
    cfg.model_wrapper_cfg.setdefault(
        'find_unused_parameters', cfg.get('find_unused_parameters', False)
    )
    cfg.model_wrapper_cfg.device_ids = None
    if cfg.pop('sync_bn', None):
        print('SyncBN needs CUDA: norms stay per process in this run.')
