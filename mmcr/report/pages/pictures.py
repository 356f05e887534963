"""What trained detectors look like: receptive fields, and detections that differ."""

from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from warnings import catch_warnings, simplefilter

import torch
from mmdet.registry import DATASETS
from mmengine.logging import MMLogger
from torch import nn

from mmcr.engine.launch import read_config
from mmcr.files import file_digest, read_state, write_json
from mmcr.report.erf import fields_figure, fields_record, receptive_fields
from mmcr.report.pages.detections import compared, shown
from mmcr.report.pages.detector import detector_of
from mmcr.report.pages.page import svg

NOISE, SHAPE = 8, (512, 512)  # images for receptive fields


def pictures(
    trained: Mapping[str, tuple[Path, str]], file: Path, log: Callable[[str], None]
) -> dict:
    """Draws what is not drawn yet.

    Args:
        trained: By name a detector's config and checkpoint, the baseline first.
        file: JSON with what was drawn before of these checkpoints.
        log: Told what cannot be drawn: pictures are worth no error.

    Returns:
        JSON: `fields` with their `sides` and `figure`, an SVG; and `detections`, as
        `detections.shown` has them. What cannot be drawn is not there.
    """
    digests = {name: file_digest(weights) for name, (_, weights) in trained.items()}
    known = read_state(file)
    if known.get('of') == digests:
        return known
    drawn, missing = dict(of=digests), []
    MMLogger.get_instance('pictures', log_level='ERROR')
    with redirect_stdout(StringIO()), catch_warnings():  # what reads data prints
        simplefilter('ignore')  # boxes that leave their image
        for name, draw in dict(fields=_fields, detections=_detections).items():
            try:
                drawn[name] = draw(trained)
            except Exception as error:  # of any detector, any data, any memory
                missing.append(f'No {name} on the page ({_reason(error)}).')
    for line in missing:
        log(line)
    if not missing:
        write_json(file, drawn)
    return drawn


def _reason(error: Exception) -> str:
    return f'{type(error).__name__}: {error}'


def _detectors(trained: Mapping[str, tuple[Path, str]]) -> dict[str, nn.Module]:
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    return {
        name: detector_of(read_config(config), str(config), weights).to(device)
        for name, (config, weights) in trained.items()
    }


def _fields(trained: Mapping[str, tuple[Path, str]]) -> dict:
    networks = {}
    for name, detector in _detectors(trained).items():
        device, random = next(detector.parameters()).device, torch.Generator()
        random.manual_seed(0)
        noise = (torch.randn(1, 3, *SHAPE, generator=random) for _ in range(NOISE))
        fields = receptive_fields(detector, (each.to(device) for each in noise))
        networks[name] = fields
    figure = svg(fields_figure(networks), 'the effective receptive fields')
    return dict(sides=fields_record(networks), figure=figure)


def _detections(trained: Mapping[str, tuple[Path, str]]) -> dict:
    # each with its own pipeline, which may have another image scale
    sets = {
        name: DATASETS.build(read_config(config).test_dataloader.dataset)
        for name, (config, _) in trained.items()
    }
    first = next(iter(sets.values()))
    return shown(compared(_detectors(trained), sets), first)
