"""A trained detector exported for a runtime, and scored again as it runs there."""

import copy
import json
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.runner import Runner
from torch import Tensor, nn

from mmcr.cost.timing import cpu_name
from mmcr.engine.launch import build_runner
from mmcr.errors import UserError
from mmcr.files import check_output, write_bytes
from mmcr.models.deployed import (
    Part,
    divisor_of,
    left_in_torch,
    padded,
    parts_of,
    run_by,
)
from mmcr.models.detector import unwrapped
from mmcr.models.runtimes import (
    SUFFIXES,
    Session,
    check_runtime,
    converted,
    runtime_versions,
    write_onnx,
)
from mmcr.models.weights.checkpoint import read_weights, unwrapped_names
from mmcr.models.weights.compatibility import check_weights
from mmcr.scoring.loaders import calibration_cfg
from mmcr.workflow.contests.finals import unrounded

ROIS = 64  # of an image, to take ranges from
#: Of a config, what a test has no need of.
NOT_TESTED = (
    *('train_dataloader', 'train_cfg', 'optim_wrapper', 'param_scheduler'),
    *('val_dataloader', 'val_cfg', 'val_evaluator'),
)


@contextmanager
def loaded(cfg: Config, checkpoint: str, images: int | None) -> Iterator[Runner]:
    """A runner that tests a trained detector, its AP not rounded.

    Args:
        cfg: Of the detector; without a complete test it is tested on the validation
            set.
        checkpoint: Of the detector.
        images: How many of the set to test on, the first ones; ``None``: all.

    Raises:
        UserError: There is nothing to test on, or the checkpoint lacks weights.
    """
    cfg = copy.deepcopy(cfg)
    of = next((name for name in ('test', 'val') if _is_tested(cfg, name)), None)
    if of is None:
        raise UserError(
            'An exported detector is scored by a test, but this config has no complete '
            'one with annotations: test_dataloader, test_evaluator and test_cfg, nor '
            'these of val. Add them.'
        )
    for part in ('dataloader', 'evaluator'):
        cfg[f'test_{part}'] = copy.deepcopy(cfg[f'{of}_{part}'])
    cfg.test_cfg = dict(type='TestLoop')
    for name in NOT_TESTED:
        cfg[name] = None
    if images is not None:
        cfg.test_dataloader.dataset.indices = images
    with suppress(UserError):  # of another kind, such as VOC's
        cfg.test_evaluator = unrounded(cfg.test_evaluator, 'bbox')
    cfg.custom_hooks, cfg.launcher, cfg.resume = [], 'none', False
    cfg.load_from = checkpoint
    weights = unwrapped_names(read_weights(checkpoint))
    with tempfile.TemporaryDirectory() as folder:
        cfg.work_dir = folder
        runner = build_runner(cfg)
        own = unwrapped(runner.model).state_dict()
        known = {name: w for name, w in weights.items() if name in own}
        check_weights(known, unwrapped(runner.model), checkpoint)
        runner.load_or_resume()
        runner.model.eval()
        yield runner


def _is_tested(cfg: Config, name: str) -> bool:
    evaluators = cfg.get(f'{name}_evaluator') or {}
    evaluators = [evaluators] if isinstance(evaluators, Mapping) else evaluators
    complete = all(cfg.get(f'{name}_{part}') for part in ('dataloader', 'cfg'))
    blind = any(each.get('format_only') for each in evaluators)
    return bool(complete and evaluators and not blind)


def export(
    cfg: Config,
    checkpoint: str,
    out: Path,
    precision: str = 'fp32',
    images: int | None = None,
    calibration_images: int = 32,
) -> dict:
    """Writes a detector's files and a JSON beside them, and scores it as they run.

    Args:
        cfg: Of the detector.
        checkpoint: Of the detector.
        out: The file of the network; its ending says the runtime, ``.onnx`` or
            ``.xml``. Those of heads have the head's name in theirs.
        precision: 'fp32', 'fp16' or 'int8'.
        images: As in `loaded`.
        calibration_images: Of the training set, that ranges of int8 are taken from.

    Returns:
        What is in the JSON.

    Raises:
        UserError: A package is missing, the detector cannot be exported, or a file is
            there already.
    """
    runtime = next((r for r, suffix in SUFFIXES.items() if suffix == out.suffix), '')
    check_runtime(runtime, precision)
    record_file = out.with_name(f'{out.name}.json')
    for path in out, record_file:
        check_output('The file to write', path)
    with loaded(cfg, checkpoint, images) as runner:
        detector = unwrapped(runner.model)
        parts = parts_of(detector)
        seen = {}
        if precision == 'int8':
            seen = _inputs(detector, cfg, parts, calibration_images)
        record = _described(detector, parts, runtime, precision)
        record['files'] = _write(parts, out, precision, seen)
        before = runner.test()
        sessions = {n: Session(out.parent / f) for n, f in record['files'].items()}
        run_by(detector, parts, sessions)
        after = runner.test()
        record['images'] = len(runner.test_dataloader.dataset)
    record['score'] = _compared(before, after)
    write_bytes(record_file, (json.dumps(record, indent=2) + '\n').encode())
    return record


def _write(parts: Sequence[Part], out: Path, precision: str, seen: Mapping) -> dict:
    """Writes all files or none; returns their names by part."""
    files = {
        part.name: out.name
        if part.name == 'network'
        else f'{out.stem}.{part.name}{out.suffix}'
        for part in parts
    }
    with tempfile.TemporaryDirectory(dir=out.parent) as folder:
        for part in parts:
            onnx = Path(folder, 'as_exported')
            write_onnx(onnx, part.module, part.example, part.dims, part.outputs)
            made = Path(folder, 'made', files[part.name])
            made.parent.mkdir(exist_ok=True)
            converted(onnx, made, precision, seen.get(part.name, ()))
        made = list(Path(folder, 'made').iterdir())
        for path in made:
            check_output('The file to write', out.parent / path.name)
        for path in made:
            path.replace(out.parent / path.name)
    return files


@torch.no_grad()
def _inputs(
    detector: nn.Module, cfg: Config, parts: Sequence[Part], images: int
) -> dict[str, list[Tensor]]:
    """What the parts take when the detector runs on training images."""
    tested = cfg.get('test_dataloader') or cfg.val_dataloader
    loader = calibration_cfg(cfg.get('train_dataloader'), dict(tested))
    batches = Runner.build_dataloader(copy.deepcopy({**loader, 'batch_size': 1}))
    seen = defaultdict(list)

    def note(part: Part):
        def hook(module, inputs):
            if count := len(inputs[0]):
                few = -(-count // ROIS)
                seen[part.name].append(inputs[0][::few].cpu())

        return part.module.register_forward_pre_hook(hook)

    hooks = [note(part) for part in parts[1:]]
    try:
        for batch in islice(batches, images):
            data = detector.data_preprocessor(batch, False)
            detector.predict(data['inputs'], data['data_samples'])
            image = padded(data['inputs'], divisor_of(detector))
            seen['network'].append(image.cpu())
    finally:
        for hook in hooks:
            hook.remove()
    if unseen := [part.name for part in parts if not seen[part.name]]:
        raise UserError(
            f'int8 takes the ranges of all parts from training images, but of '
            f'{", ".join(unseen)} there are none: {images} images have no detection. '
            f'Give --calibration-images more, or another --precision.'
        )
    return seen


def _described(
    detector: nn.Module, parts: Sequence[Part], runtime: str, precision: str
) -> dict:
    numbers = detector.data_preprocessor
    divisor = divisor_of(detector)
    return dict(
        runtime=runtime,
        precision=precision,
        input=dict(
            shape=f'N x 3 x H x W, H and W multiples of {divisor}',
            order='RGB' if getattr(numbers, '_channel_conversion', False) else 'BGR',
            mean=getattr(numbers, 'mean', torch.zeros(0)).flatten().tolist(),
            std=getattr(numbers, 'std', torch.zeros(0)).flatten().tolist(),
        ),
        outputs={part.name: part.outputs for part in parts},
        left_in_torch=left_in_torch(detector, parts),
        machine=cpu_name(),
        versions=dict(torch=torch.__version__, **runtime_versions(runtime)),
    )


def _compared(torchs: Mapping[str, float], runtimes: Mapping[str, float]) -> dict:
    name = next((n for n in torchs if 'mAP' in n), next(iter(torchs)))
    return dict(
        metric=name,
        torch=torchs[name],
        runtime=runtimes[name],
        difference=runtimes[name] - torchs[name],
        all=dict(torch=dict(torchs), runtime=dict(runtimes)),
    )
