"""A path of a trained supernet as a detector of its own, ready to be used."""

import copy
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from mmengine.config import Config, ConfigDict

from mmcr.engine.archval_loop import ArchEvalLoop
from mmcr.engine.launch import build_runner, config_text
from mmcr.errors import UserError
from mmcr.files import file_digest, write_bytes
from mmcr.models.detector import supernet_of
from mmcr.models.weights.checkpoint import (
    CheckpointError,
    load_from_local,
    write_weights,
)
from mmcr.models.weights.compatibility import check_supernet_checkpoint
from mmcr.registry import LOOPS, kind_of
from mmcr.scoring.evaluator import CandidateEvaluator
from mmcr.space.arch import Arch

PREDICTS = 'test', 'val'  # where a config may say how paths are scored
#: What trains supernets alone.
OF_SUPERNETS = (
    'ArchSamplingHook',
    'InPlaceDistillationHook',
    'PathLogHook',
    'ActivePathDDP',
)


@contextmanager
def opened(
    cfg: Config, checkpoint: str, calibration_images: int | None = None
) -> Iterator[CandidateEvaluator]:
    """What scores the paths of a trained supernet, as its search does.

    Args:
        cfg: Of the search, or of the training with named paths as validation.
        checkpoint: Of the supernet.
        calibration_images: For the norms; ``None``: as the config says; 0 leaves the
            statistics as the training did, a mix of those of all paths.

    Raises:
        UserError: The config is of neither, or its backbone is no supernet.
        CheckpointError: The checkpoint is of another supernet.
    """
    supernet_of(cfg)
    cfg = copy.deepcopy(cfg)
    part = next((part for part in PREDICTS if _scores_paths(cfg, part)), None)
    if part is None:
        raise UserError(
            'A path gets its norms from calibration images, which test_cfg of a search '
            '(mmcr.ArchSearchLoop) or val_cfg of a supernet (mmcr.ArchValLoop) names, '
            'but this config has neither. Give the config of the search.'
        )
    if calibration_images is not None:
        cfg[f'{part}_cfg'].calibration_images = calibration_images
    cfg.default_hooks, cfg.custom_hooks = dict(), []
    cfg.visualizer = dict(type='Visualizer')
    cfg.load_from, cfg.resume, cfg.launcher = checkpoint, False, 'none'
    with tempfile.TemporaryDirectory() as folder:
        cfg.work_dir = folder
        runner = build_runner(cfg)
        check_supernet_checkpoint(runner.model, checkpoint)
        runner.load_or_resume()
        yield getattr(runner, f'{part}_loop').candidates


def _scores_paths(cfg: Config, part: str) -> bool:
    kind = (cfg.get(f'{part}_cfg') or {}).get('type')
    kind = LOOPS.get(kind) if isinstance(kind, str) else kind
    return isinstance(kind, type) and issubclass(kind, ArchEvalLoop)


def write_path(
    path: Path, candidates: CandidateEvaluator, arch: Arch, checkpoint: str
) -> None:
    """Writes the checkpoint of one path's detector, with its classes.

    Args:
        path: Of the file.
        candidates: From `opened`.
        arch: The path.
        checkpoint: Of the supernet.
    """
    known = candidates.archval.dataset.metainfo
    classes = {name: known[name] for name in ('classes', 'palette') if name in known}
    write_weights(
        path,
        candidates.path_weights(arch),
        arch=arch.to_json(),
        supernet=file_digest(checkpoint),
        dataset_meta=classes,
    )


def is_path(path: Path, arch: Arch, supernet: str) -> bool:
    """Whether a file is what `write_path` made of that path of the supernet.

    Args:
        path: Of the file, which may be missing.
        arch: The path.
        supernet: Digest of the supernet's checkpoint.
    """
    with suppress(CheckpointError):
        meta = load_from_local(str(path), 'cpu')['meta']
        return (meta.get('arch'), meta.get('supernet')) == (arch.to_json(), supernet)
    return False


def path_config(cfg: Config, arch: Arch, detector: Config | None = None) -> Config:
    """The plain config of one path's detector.

    Args:
        cfg: Of the search or of the supernet.
        arch: The path.
        detector: Of the detector, whose data, schedule and hooks it gets; ``None``:
            those of `cfg`, to be tested on archval.
    """
    supernet, _ = supernet_of(cfg)
    made = copy.deepcopy(cfg if detector is None else detector)
    made.model = copy.deepcopy(cfg.model)
    made.model.pop('init_cfg', None)
    made.model.backbone = ConfigDict(supernet.arch_cfg(arch))
    made.load_from, made.resume = None, False
    made.pop('work_dir', None)
    if detector is None:
        made.custom_hooks = _others(made.get('custom_hooks') or ())
        if not _others([made.get('model_wrapper_cfg') or {}]):
            made.pop('model_wrapper_cfg')
        for part, kind in zip(PREDICTS, ('TestLoop', 'ValLoop')):
            if _scores_paths(made, part):
                made[f'{part}_cfg'] = dict(type=kind)
    return made


def _others(parts: Sequence[Mapping]) -> list[Mapping]:
    return [part for part in parts if kind_of(part) not in OF_SUPERNETS]


def write_config(path: Path, cfg: Config) -> None:
    """Writes a config, the whole of it or nothing."""
    write_bytes(path, config_text(cfg).encode())
