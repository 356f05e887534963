"""Detectors whose networks run as files of a runtime.

What a network computes goes into files: backbone, neck and dense head (of a two-stage
detector the RPN) as one, and each head that runs per RoI as another. What lies between
and behind, of sizes that depend on the image (anchors, NMS, RoIAlign), stays mmdet's.
"""

import inspect
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from mmdet.models import SingleStageDetector, TwoStageDetector
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from torch import Tensor, nn
from torch.export import Dim
from torch.utils._pytree import tree_flatten, tree_unflatten

from mmcr.errors import UserError
from mmcr.files import read_json
from mmcr.models.detector import has_rois
from mmcr.models.runtimes import Session

STRIDE = 32  # of the last stage of a backbone: images are padded to its multiples
LOOK = 3, 4  # height and width of the example, in what is 4 times the stride at least


@dataclass
class Part:
    """What becomes a file.

    Attributes:
        name: ``network``, or that of the head in the RoI head.
        module: Takes one tensor.
        example: Such a tensor.
        dims: Of it, those that may vary.
        labels: What the entries of its output are called.
        outputs: The names of its output tensors; ``cls_scores.0`` is of the first
            level.
    """

    name: str
    module: nn.Module
    example: Tensor
    dims: Mapping[int, object]
    labels: Sequence[str]

    def __post_init__(self):
        with torch.no_grad():
            found = self.module(self.example)
        self._form = tree_flatten(found)[1]
        self.outputs = []
        entries = found if isinstance(found, tuple) else (found,)
        for label, entry in zip(self.labels, entries):
            count = len(tree_flatten(entry)[0])
            single = isinstance(entry, Tensor)
            self.outputs += (
                [label] if single else [f'{label}.{i}' for i in range(count)]
            )

    def nested(self, outputs: list[Tensor]) -> object:
        """The output tensors as the module returns them."""
        return tree_unflatten(outputs, self._form)


class _Network(nn.Module):
    def __init__(self, detector: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.detector, self.head = detector, head
        self.with_features = isinstance(detector, TwoStageDetector)

    def forward(self, images: Tensor) -> tuple:
        features = self.detector.extract_feat(images)
        raw = self.head(features)
        raw = raw if isinstance(raw, tuple) else (raw,)
        return (features, *raw) if self.with_features else raw


class _Levels(tuple):
    """A neck's features, none where no more is asked of them, with a head's output."""

    raw: tuple


def divisor_of(detector: nn.Module) -> int:
    """What height and width of an image are multiples of, where the file runs."""
    own = getattr(detector.data_preprocessor, 'pad_size_divisor', 1)
    return math.lcm(STRIDE, own)


def padded(images: Tensor, detector: nn.Module) -> Tensor:
    """Images, ``N x 3 x H x W``, padded as `divisor_of` says.

    At the right and the bottom, with the value that the detector pads with.
    """
    (height, width), divisor = images.shape[-2:], divisor_of(detector)
    value = getattr(detector.data_preprocessor, 'pad_value', 0)
    return F.pad(images, (0, -width % divisor, 0, -height % divisor), value=value)


def parts_of(detector: nn.Module) -> list[Part]:
    """What of a detector becomes files, the network first.

    Raises:
        UserError: It is none of a dense head, or searchable.
    """
    head = _dense_head(detector)
    divisor = divisor_of(detector)
    cells = max(1, 4 * STRIDE // divisor)
    shape = [cells * divisor * n for n in LOOK]
    labels = list(inspect.signature(head.predict_by_feat).parameters)
    if isinstance(detector, TwoStageDetector):
        labels.insert(0, 'features')
    dims = {0: Dim('batch'), 2: divisor * Dim('h'), 3: divisor * Dim('w')}
    device = next(detector.parameters()).device
    network = _Network(detector, head)
    image = torch.zeros(2, 3, *shape, device=device)
    return [Part('network', network, image, dims, labels), *_roi_parts(detector)]


def _dense_head(detector: nn.Module) -> nn.Module:
    if getattr(getattr(detector, 'backbone', None), 'space', None) is not None:
        raise UserError(
            'A fixed detector can be exported, but this one is a supernet. Take a path '
            'out of it with tools/model_converters/extract_subnet.py.'
        )
    head = getattr(detector, 'rpn_head', None) or getattr(detector, 'bbox_head', None)
    kind = type(detector)
    fits = kind.predict is SingleStageDetector.predict or (
        kind.predict is TwoStageDetector.predict and has_rois(detector)
    )
    if not fits or getattr(type(head), 'predict', None) is not BaseDenseHead.predict:
        raise UserError(
            f'Detectors of one stage and those with an RPN can be exported, whose '
            f'dense head returns numbers for every place of every level, but this is '
            f'{kind.__name__} with {type(head).__name__}.'
        )
    return head


def _roi_heads(detector: nn.Module) -> Iterator[tuple[str, nn.Module, nn.Module]]:
    """The heads of a RoI head by name, each with what extracts its features."""
    owner = getattr(detector, 'roi_head', None)
    for kind in ('bbox', 'mask'):
        heads = getattr(owner, f'{kind}_head', None)
        extractors = getattr(owner, f'{kind}_roi_extractor', None)
        if isinstance(heads, nn.ModuleList):
            for i, head in enumerate(heads):
                yield f'{kind}_head.{i}', head, extractors[i]
        elif heads is not None:
            yield f'{kind}_head', heads, extractors


def _roi_parts(detector: nn.Module) -> Iterator[Part]:
    for name, head, extractor in _roi_heads(detector):
        if len(inspect.signature(head.forward).parameters) != 1:
            continue  # of several inputs: it stays in torch
        size = extractor.roi_layers[0].output_size
        device = next(head.parameters()).device
        rois = torch.zeros(2, extractor.out_channels, *size, device=device)
        if getattr(detector.roi_head, 'with_shared_head', False):
            with torch.no_grad():
                rois = detector.roi_head.shared_head(rois)
        labels = ['mask'] if name.startswith('mask') else ['cls_score', 'bbox_pred']
        yield Part(name, head, rois, {0: Dim('rois')}, labels)


def left_in_torch(detector: nn.Module, parts: Sequence[Part]) -> list[str]:
    """Modules of a RoI head with weights that are in no file."""
    owner = getattr(detector, 'roi_head', None)
    exported = {id(p) for part in parts for p in part.module.parameters()}
    children = owner.named_children() if owner is not None else ()
    return [
        name
        for name, module in children
        if any(id(p) not in exported for p in module.parameters())
    ]


def run_by(detector: nn.Module, parts: Sequence[Part], sessions: Mapping) -> None:
    """Has a detector's parts computed by sessions from now on.

    Args:
        detector: Whose methods are replaced.
        parts: From `parts_of`.
        sessions: By name of the part, what takes its input and returns its outputs.
    """
    network, *heads = parts
    has_features = network.module.with_features

    def extract_feat(images: Tensor) -> _Levels:
        outputs = network.nested(sessions['network'](padded(images, detector)))
        levels = _Levels(outputs[0] if has_features else ())
        levels.raw = outputs[1:] if has_features else outputs
        return levels

    detector.extract_feat = extract_feat
    network.module.head.forward = lambda levels: levels.raw
    for part in heads:
        part.module.forward = lambda rois, part=part: part.nested(
            sessions[part.name](rois)
        )


def deployed(detector: nn.Module, record: str | Path) -> nn.Module:
    """A detector that exported files compute, for `inference_detector` and the like.

    Args:
        detector: Of the config and checkpoint that were exported, as mmdet's
            `init_detector` returns it; it is changed.
        record: The JSON that was written with the files.

    Raises:
        UserError: It is another JSON, or of a detector with other parts or outputs.
    """
    place, record = Path(record), read_json(record, 'what an export wrote')
    if not isinstance(record, dict) or not {'outputs', 'files'} <= record.keys():
        raise UserError(
            f'{place} must be what an export wrote beside its files, with outputs and '
            f'files, but it is another JSON. Name that of tools/deployment/export.py.'
        )
    parts, exported = parts_of(detector), record['outputs']
    own = {part.name: part.outputs for part in parts}
    if own != exported:
        raise UserError(
            f'The detector must be that which was exported, but its parts give {own} '
            f'and those of {place} {exported}. Use the config of the export.'
        )
    files = record['files'].items()
    run_by(detector, parts, {name: Session(place.parent / f) for name, f in files})
    return detector
