"""A trained detector exported for a runtime, and scored again as it runs there."""

import copy
import json
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.runner import Runner
from torch import Tensor, nn

from mmcr.cost.timing import cpu_name
from mmcr.data.sets import inner_sets
from mmcr.engine.launch import build_runner
from mmcr.errors import UserError
from mmcr.files import check_output, file_digest
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
from mmcr.models.weights.compatibility import load_detector
from mmcr.registry import kind_of
from mmcr.scoring.loaders import build_loader, calibration_cfg
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
        UserError: There is nothing to test on, or the checkpoint is of another
            detector.
    """
    of = scored_on(cfg)
    cfg = copy.deepcopy(cfg)
    for part in ('dataloader', 'evaluator'):
        cfg[f'test_{part}'] = copy.deepcopy(cfg[f'{of}_{part}'])
    cfg.test_cfg = dict(type='TestLoop')
    for name in NOT_TESTED:
        cfg[name] = None
    with suppress(UserError):  # of another kind, such as VOC's
        cfg.test_evaluator = unrounded(cfg.test_evaluator, 'bbox')
    cfg.default_hooks, cfg.custom_hooks = dict(), []
    cfg.visualizer = dict(type='Visualizer')
    cfg.load_from, cfg.resume, cfg.launcher = checkpoint, False, 'none'
    with tempfile.TemporaryDirectory() as folder:
        cfg.work_dir = folder
        runner = build_runner(cfg)
        load_detector(unwrapped(runner.model), checkpoint)
        runner.load_or_resume()
        runner.model.eval()
        if images is not None:
            _take_first(runner, images)
        yield runner


def scored_on(cfg: Config) -> str:
    """The set that a detector is tested on, 'test' or 'val'.

    Raises:
        UserError: There is none.
    """
    for name in ('test', 'val'):
        if _is_tested(cfg, name):
            return name
    raise UserError(
        'An exported detector is scored by a test, but this config has no complete one '
        'with annotations: test_dataloader, test_evaluator and test_cfg, nor these of '
        'val. Add them.'
    )


def _take_first(runner: Runner, images: int) -> None:
    """Has the first images tested alone, whatever data set they are of."""
    loader = runner.test_dataloader
    first = range(min(images, len(loader.dataset)))
    loader.batch_sampler.sampler = first
    ids = [loader.dataset.get_data_info(i).get('img_id') for i in first]
    for metric in runner.test_evaluator.metrics:
        if hasattr(metric, 'img_ids'):
            metric.img_ids = ids  # CocoMetric's recall would count all others as missed


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
    check_output('The file to write', out)
    with loaded(cfg, checkpoint, images) as runner, _all_or_none(out.parent) as folder:
        detector = unwrapped(runner.model)
        parts, seen = parts_of(detector), {}
        files = _names(parts, out)
        record = _described(runner, parts, runtime, precision)
        record.update(files=files, set=scored_on(cfg))
        record['images'] = len(runner.test_dataloader.batch_sampler.sampler)
        if Path(checkpoint).expanduser().is_file():  # not at an address
            record['checkpoint'] = file_digest(checkpoint)
        if precision == 'int8':
            seen = _inputs(detector, cfg, parts, calibration_images)
        # before the scoring, which takes longer: not every network can be exported
        _write(parts, files, folder, precision, seen)
        before = runner.test()
        run_by(detector, parts, {n: Session(folder / f) for n, f in files.items()})
        record['score'] = _compared(before, runner.test())
        text = json.dumps(record, indent=2, default=_name_of)
        Path(folder, f'{out.name}.json').write_text(f'{text}\n')
    return record


def _name_of(value: object) -> str:
    """Of a class in a lazy config, what JSON has in its place."""
    return getattr(value, '__name__', str(value))


@contextmanager
def _all_or_none(place: Path) -> Iterator[Path]:
    """A folder whose files are moved to a place after the block, unless it fails."""
    with tempfile.TemporaryDirectory(dir=place) as folder:
        yield Path(folder)
        made = sorted(Path(folder).iterdir(), key=lambda path: path.suffix == '.json')
        for path in made:
            check_output('The file to write', place / path.name)
        for path in made:
            path.replace(place / path.name)


def _names(parts: Sequence[Part], out: Path) -> dict[str, str]:
    """The names of files by part, of which none may be there."""
    files = {part.name: f'{out.stem}.{part.name}{out.suffix}' for part in parts}
    files['network'] = out.name
    written = [out.with_name(name) for name in files.values()]
    if out.suffix == SUFFIXES['openvino']:
        written += [path.with_suffix('.bin') for path in written]
    for path in (*written, out.with_name(f'{out.name}.json')):
        check_output('The file to write', path)
    return files


def _write(
    parts: Sequence[Part], files: Mapping, folder: Path, precision: str, seen: Mapping
) -> None:
    with tempfile.TemporaryDirectory() as between:
        for part in parts:
            onnx = Path(between, 'as_exported')
            write_onnx(onnx, part.module, part.example, part.dims, part.outputs)
            made = folder / files[part.name]
            converted(onnx, made, precision, seen.get(part.name, ()))


@torch.no_grad()
def _inputs(
    detector: nn.Module, cfg: Config, parts: Sequence[Part], images: int
) -> dict[str, list[Tensor]]:
    """What the parts take when the detector runs on training images."""
    tested = cfg.get('test_dataloader') or cfg.val_dataloader
    try:
        loader = calibration_cfg(cfg.get('train_dataloader'), dict(tested))
    except UserError:
        raise UserError(
            'int8 takes the ranges of numbers from training images, but '
            'train_dataloader of this config has no data set with a pipeline. Add one, '
            'or take another --precision.'
        ) from None
    loader = copy.deepcopy({**loader, 'batch_size': 1})
    batches = build_loader(loader, 'train_dataloader', images)
    seen = defaultdict(list)

    def note(part: Part):
        def hook(module, inputs):
            if count := len(inputs[0]):
                few = -(-count // ROIS)
                seen[part.name].append(inputs[0][::few].cpu())

        return part.module.register_forward_pre_hook(hook)

    hooks = [note(part) for part in parts[1:]]
    try:
        for batch in batches:
            data = detector.data_preprocessor(batch, False)
            detector.predict(data['inputs'], data['data_samples'])
            image = padded(data['inputs'], detector)
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
    runner: Runner, parts: Sequence[Part], runtime: str, precision: str
) -> dict:
    detector = unwrapped(runner.model)
    numbers = detector.data_preprocessor
    steps = next(inner_sets(runner.cfg.test_dataloader.dataset)).get('pipeline', [])
    is_swapped = getattr(numbers, '_channel_conversion', False)
    return dict(
        runtime=runtime,
        precision=precision,
        input=dict(
            shape=f'N x 3 x H x W, H and W multiples of {divisor_of(detector)}',
            pipeline=steps,
            order=channel_order(steps, is_swapped),
            mean=getattr(numbers, 'mean', torch.zeros(0)).flatten().tolist(),
            std=getattr(numbers, 'std', torch.zeros(0)).flatten().tolist(),
            pad_value=getattr(numbers, 'pad_value', 0),
        ),
        outputs={part.name: part.outputs for part in parts},
        left_in_torch=left_in_torch(detector, parts),
        machine=cpu_name(),
        versions=dict(torch=torch.__version__, **runtime_versions(runtime)),
    )


def channel_order(steps: Sequence[Mapping], is_swapped: bool) -> str:
    """Of the images that a network takes, 'RGB' or 'BGR'.

    Args:
        steps: The pipeline. mmcv's loader gives BGR, but RGB by tifffile; one of
            another kind may say it by ``channel_order``.
        is_swapped: By the preprocessor, whose ``bgr_to_rgb`` and ``rgb_to_bgr`` do the
            same.
    """
    load = next((each for each in steps if kind_of(each).startswith('LoadImage')), {})
    as_read = 'rgb' if load.get('imdecode_backend') == 'tifffile' else 'bgr'
    is_rgb = load.get('channel_order', as_read) == 'rgb'
    normalizes = [each for each in steps if kind_of(each) == 'Normalize']
    swaps = is_swapped + sum(bool(each.get('to_rgb', True)) for each in normalizes)
    return 'RGB' if is_rgb ^ (swaps % 2) else 'BGR'


def _compared(torchs: Mapping[str, float], runtimes: Mapping[str, float]) -> dict:
    name = next((n for n in torchs if 'mAP' in n), next(iter(torchs)))
    return dict(
        metric=name,
        torch=torchs[name],
        runtime=runtimes[name],
        difference=runtimes[name] - torchs[name],
        all=dict(torch=dict(torchs), runtime=dict(runtimes)),
    )
