"""What a detector costs: multiply-accumulates and parameters of its parts."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from mmcr.checks import checked_shape
from mmcr.cost.macs import (
    CONVENTIONS,
    PRODUCTS,
    Convention,
    MacsCounter,
    params_of,
    shapes_only,
)
from mmcr.data.scales import padded_shape
from mmcr.errors import UserError
from mmcr.models.detector import has_rois, refitted

# more than the 100 that mmdet's forward hands on to masks, so that a part's batch tells
# for which it ran; what an RoI costs does not depend on the number
TRACED_ROIS = 101


@dataclass(frozen=True)
class Cost:
    """Of one part: multiply-accumulates of one image, and parameters."""

    macs: int
    params: int


@dataclass(frozen=True)
class Complexity:
    """What a detector costs.

    Attributes:
        parts: By name (``backbone``, ``neck``, ``rpn_head``,
            ``roi_head.bbox_head``, ...), in the detector's order.
        shape: Height and width of the input in pixels, padded as the detector pads.
        convention: One of `CONVENTIONS`.
        rois: How many went through the ``box`` and ``mask`` heads, where there are any.
        unreached: Parts with layers that the forward did not run, counted as 0: of
            training alone, or run in a test alone (PointRend's points).
    """

    parts: dict[str, Cost]
    shape: tuple[int, int]
    convention: str
    rois: dict[str, int]
    unreached: tuple[str, ...] = ()

    @property
    def macs(self) -> int:
        return sum(cost.macs for cost in self.parts.values())

    @property
    def params(self) -> int:
        return sum(cost.params for cost in self.parts.values())

    def table(self) -> str:
        """The parts and their sum as lines of text."""
        rows = [*self.parts.items(), ('total', Cost(self.macs, self.params))]
        width = max(len(name) for name, _ in rows)
        head = f'{"part":{width}}  {"MACs (G)":>10}  {"params (M)":>10}'
        *lines, total = (
            f'{name:{width}}  {cost.macs / 1e9:10.3f}  {cost.params / 1e6:10.3f}'
            for name, cost in rows
        )
        line = '-' * len(head)
        return '\n'.join([head, *lines, line, total, '', self.conditions])

    @property
    def conditions(self) -> str:
        """What was counted, in words."""
        rois = [f', {n} RoIs in the {kind} head' for kind, n in self.rois.items()]
        names, left_out = ', '.join(self.unreached), ''
        if names:
            left_out = f"; without {names}, which mmdet's forward does not run"
        return (
            f'Input {self.shape[0]} x {self.shape[1]} (height x width){"".join(rois)}; '
            f'{CONVENTIONS[self.convention].meaning}{left_out}.'
        )


def measure(
    cfg: Config, shape: tuple[int, int], convention: str = 'mmengine'
) -> Complexity:
    """Counts what the config's detector costs for one image.

    What a part costs per RoI is multiplied by the number that the convention or the
    config gives. Of a supernet, one path's multiply-accumulates and all paths'
    parameters are counted.

    Args:
        cfg: A detector's config.
        shape: Height and width of the image in pixels.
        convention: One of `CONVENTIONS`.

    Raises:
        UserError: The config has no model, or an argument breaks its rule, or the
            detector cannot be built or run.
    """
    if convention not in CONVENTIONS:
        raise UserError(
            f'convention must be one of {list(CONVENTIONS)}, but got {convention!r}.'
        )
    shape = checked_shape(shape)
    if 'model' not in cfg:
        raise UserError('The config must define a detector as model, but it has none.')
    init_default_scope(cfg.get('default_scope') or 'mmdet')
    shape = padded_shape(cfg.model, shape)
    parts, rois, unreached = _count(cfg.model, shape, CONVENTIONS[convention])
    return Complexity(parts, shape, convention, rois, unreached)


def macs_beside_backbone(
    model: Mapping,
    backbone_cfg: Mapping,
    before: Sequence[int],
    now: Sequence[int],
    shape: tuple[int, int],
) -> int:
    """Counts convolutions and matrix products of a detector's neck and heads.

    Args:
        model: Config of the detector of a supernet.
        backbone_cfg: Of the network to be found, in the place of the supernet.
        before: Channels of the supernet's outputs.
        now: Of the network's.
        shape: Height and width of the image in pixels, padded.

    Raises:
        UserError: The detector cannot be built or run.
    """
    cfg = dict(refitted(model, before, now), backbone=dict(backbone_cfg))
    parts, *_ = _count(cfg, shape, PRODUCTS)
    return sum(cost.macs for name, cost in parts.items() if name != 'backbone')


def _count(
    model: Mapping, shape: tuple[int, int], rule: Convention
) -> tuple[dict[str, Cost], dict[str, int], tuple[str, ...]]:
    """Costs by part, RoIs by kind of head, and parts that did not run."""
    try:
        try:
            return _count_on('meta', model, shape, rule)
        except Exception:  # some detectors look at values: images of zeros have some
            return _count_on('cpu', model, shape, rule)
    except Exception as error:  # whatever a detector's own forward raises
        raise UserError(
            f'a detector is counted by a forward of all its layers, but this one '
            f'({model.get("type")}) cannot be built or run so on an image of '
            f'{shape[0]} x {shape[1]}: {type(error).__name__}: {error}'
            + (
                '. If it wants sides that can be halved, give multiples of 32.'
                if any(side % 32 for side in shape)
                else ''
            )
        ) from error


@torch.no_grad()
def _count_on(
    device: str, model: Mapping, shape: tuple[int, int], rule: Convention
) -> tuple[dict[str, Cost], dict[str, int], tuple[str, ...]]:
    with torch.random.fork_rng(devices=[]), torch.device(device):
        detector = revert_sync_batchnorm(MODELS.build(copy.deepcopy(model)))
        detector.to(device).eval().requires_grad_(False)
        rois, parts = {}, _parts(detector)
        if has_rois(detector):
            rois['box'] = rule.proposals or detector.test_cfg.rpn.max_per_img
            rois['mask'] = rule.masks or detector.test_cfg.rcnn.max_per_img
        macs = dict.fromkeys(parts, 0)
        used, seen = set(), 0

        def found(name: str, n: int, output: object) -> None:
            nonlocal seen
            seen += n
            tensors = (x for x in tree_leaves(output) if isinstance(x, Tensor))
            batch = next((len(x) for x in tensors if x.ndim), 1)
            if rois and name.startswith('roi_head.') and batch > 1:
                # SCNet's relay feeds its mask head
                of_masks = 'mask' in name or 'relay' in name
                is_mask = of_masks or batch < TRACED_ROIS
                used.add(kind := 'mask' if is_mask else 'box')
                n = n * rois[kind] // batch
            macs[name] += n

        with shapes_only(detector), MacsCounter(rule) as counter:
            counter.watch(parts, found)
            _run_all_layers(detector, torch.zeros(1, 3, *shape))
    costs = {name: Cost(n, params_of(parts[name])) for name, n in macs.items()}
    params = params_of(detector) - sum(cost.params for cost in costs.values())
    costs['other'] = Cost(counter.total - seen, params)
    costs = {name: cost for name, cost in costs.items() if cost != Cost(0, 0)}
    unreached = tuple(n for n in parts if not macs[n] and _has_layers(parts[n]))
    return costs, {kind: n for kind, n in rois.items() if kind in used}, unreached


def _has_layers(part: nn.Module) -> bool:
    """Whether a part multiplies by weights of its own; embeddings are looked up."""
    return any(
        weight.ndim > 1
        for module in part.modules()
        if not isinstance(module, nn.Embedding)
        for weight in module.parameters(recurse=False)
    )


def _parts(detector: nn.Module) -> dict[str, nn.Module]:
    parts = dict(detector.named_children())
    roi_head = parts.pop('roi_head', None)
    if roi_head is not None:
        inside = roi_head.named_children()
        parts.update((f'roi_head.{name}', child) for name, child in inside)
    return parts


def _run_all_layers(detector: nn.Module, images: Tensor) -> None:
    """Runs every layer on one image, with `TRACED_ROIS` where there are RoIs."""
    size = tuple(images.shape[-2:])
    sample = DetDataSample(
        metainfo=dict(img_shape=size, batch_input_shape=size, pad_shape=size),
        gt_instances=InstanceData(  # of heads that go by objects, as CondInst's
            bboxes=images.new_tensor([[0, 0, 64, 64]]),
            labels=images.new_zeros(1, dtype=torch.long),
            masks=BitmapMasks(np.ones((1, *size), np.uint8), *size),
        ),
    )
    if not has_rois(detector):
        detector(images, [sample], mode='tensor')
        return
    features = detector.extract_feat(images)
    detector.rpn_head(features)
    boxes = images.new_tensor([[0, 0, 16, 16]]).repeat(TRACED_ROIS, 1)
    detector.roi_head.forward(features, [InstanceData(bboxes=boxes)], [sample])
