"""What a detector costs: multiply-accumulates and parameters of its parts."""

from dataclasses import dataclass
from functools import partial
from math import ceil, prod

import torch
from mmdet.registry import MODELS
from mmengine.analysis import FlopAnalyzer
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmcr.cost.detector_macs import TRACED_ROIS, AllLayers
from mmcr.errors import UserError
from mmcr.models.detector import has_rois


@dataclass(frozen=True)
class Convention:
    """A way to count.

    Args:
        meaning: In words, for tables.
        norms_and_activations: Whether batch norm and ReLU layers count one per
            element and everything else but convolution and matrix products
            nothing; otherwise what mmengine counts.
        proposals: RoIs that go through the box head; ``None``: as many as
            the config's RPN passes on at test time.
        masks: RoIs that go through the mask head; ``None``: as many as the
            config's detections per image.
    """

    meaning: str
    norms_and_activations: bool = False
    proposals: int | None = None
    masks: int | None = None


CONVENTIONS = {
    'mmengine': Convention(
        "mmengine's count: multiply-accumulates of convolutions and matrix products, "
        '2 per element of batch norm, 1 of upsampling, none for ReLU and RoIAlign'
    ),
    # fitted to the paper's figures, which come without a definition
    'paper': Convention(
        "CR-NAS's count: multiply-accumulates of convolutions and matrix products, "
        '1 per element of batch norm and ReLU layers, none for RoIAlign',
        norms_and_activations=True,
        proposals=2000,
        masks=128,
    ),
}
PRODUCTS = ('conv', 'linear', 'addmm', 'mm', 'matmul', 'bmm', 'einsum')
LAYERS = ('batch_norm', 'relu', 'relu_', 'relu6', 'hardtanh', 'hardtanh_')
ROI_PARTS = {'roi_head.bbox_head': 'box', 'roi_head.mask_head': 'mask'}
OTHER = 'other'


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
            ``roi_head.bbox_head``, ...), in the detector's order; they add up
            to the whole.
        shape: Height and width of the input in pixels, padded as the detector
            pads.
        convention: Name of the way of counting.
        rois: How many went through the ``box`` and ``mask`` heads; empty for a
            one-stage detector.
    """

    parts: dict[str, Cost]
    shape: tuple[int, int]
    convention: str
    rois: dict[str, int]

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
        lines = [f'{"part":{width}}  {"MACs (G)":>10}  {"params (M)":>10}']
        lines += [
            f'{name:{width}}  {cost.macs / 1e9:10.3f}  {cost.params / 1e6:10.3f}'
            for name, cost in rows
        ]
        lines.insert(-1, '-' * len(lines[0]))
        return '\n'.join([*lines, '', self.conditions])

    @property
    def conditions(self) -> str:
        """What was counted, in words."""
        rois = ''.join(
            f', {n} RoIs in the {kind} head' for kind, n in self.rois.items()
        )
        return (
            f'Input {self.shape[0]} x {self.shape[1]} (height x width){rois}; '
            f'{CONVENTIONS[self.convention].meaning}.'
        )


def measure(
    cfg: Config, shape: tuple[int, int], convention: str = 'mmengine'
) -> Complexity:
    """Counts what the config's detector costs for one image.

    Counted by mmengine's `FlopAnalyzer`, whose "flops" are multiply-accumulates.
    The weights are random, so the regions that the RPN would find mean nothing:
    the convention or the config gives their number, and the heads' cost per
    RoI is multiplied by it.

    Args:
        cfg: A detector's config. Of a supernet, one path's multiply-accumulates
            and all paths' parameters are counted.
        shape: Height and width of the image in pixels.
        convention: One of `CONVENTIONS`.

    Raises:
        UserError: The config has no model, or an argument breaks its rule.
    """
    if convention not in CONVENTIONS:
        raise UserError(
            f'convention must be one of {list(CONVENTIONS)}, but got {convention!r}.'
        )
    if len(shape) != 2 or min(shape) < 1:
        raise UserError(
            f'shape must be a height and a width in pixels, but got {shape}.'
        )
    if 'model' not in cfg:
        raise UserError('The config must define a detector as model, but it has none.')
    rule = CONVENTIONS[convention]
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    with torch.random.fork_rng(devices=[]):  # the caller's random stream goes on
        detector = revert_sync_batchnorm(MODELS.build(cfg.model)).eval()
    divisor = getattr(detector.data_preprocessor, 'pad_size_divisor', 1)
    shape = tuple(ceil(side / divisor) * divisor for side in shape)

    rois = _rois(detector, rule)
    macs = _count(detector, shape, rule)
    for part, kind in ROI_PARTS.items():
        if part in macs and kind in rois:
            macs[part] = macs[part] * rois[kind] // TRACED_ROIS
    costs = {
        part: Cost(n, _params(detector.get_submodule(part)))
        for part, n in macs.items()
        if part != OTHER
    }
    costs[OTHER] = Cost(
        macs[OTHER], _params(detector) - sum(cost.params for cost in costs.values())
    )
    parts = {part: cost for part, cost in costs.items() if cost != Cost(0, 0)}
    return Complexity(parts, shape, convention, rois)


def _params(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _rois(detector: nn.Module, rule: Convention) -> dict[str, int]:
    if not has_rois(detector):
        return {}
    test_cfg = detector.test_cfg
    rois = {'box': rule.proposals or test_cfg.rpn.max_per_img}
    if detector.roi_head.with_mask:
        rois['mask'] = rule.masks or test_cfg.rcnn.max_per_img
    return rois


@torch.no_grad()
def _count(
    detector: nn.Module, shape: tuple[int, int], rule: Convention
) -> dict[str, int]:
    """Multiply-accumulates by part, the roi head's for `TRACED_ROIS`."""
    model = AllLayers(detector)
    analyzer = FlopAnalyzer(model, torch.zeros(1, 3, *shape))
    analyzer.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    if rule.norms_and_activations:
        analyzer.set_op_handle(
            **{f'aten::{op}': partial(_elements_of_layer, model) for op in LAYERS}
        )
    operations = analyzer.by_module_and_operator()

    def macs(module: str) -> int:
        return int(
            sum(
                n
                for op, n in operations[module].items()
                if not rule.norms_and_activations or op in PRODUCTS + LAYERS
            )
        )

    parts = [name for name, _ in detector.named_children() if name != 'roi_head']
    if 'roi_head' in detector._modules:
        parts += [f'roi_head.{name}' for name, _ in detector.roi_head.named_children()]
    found = {part: macs(f'detector.{part}') for part in parts}
    found[OTHER] = macs('') - sum(found.values())
    return found


def _elements_of_layer(model: nn.Module, inputs: list, outputs: list) -> int:
    # layers only: mmdet's functional calls, as the RPN's ReLU, stay out
    owner = model.get_submodule(outputs[0].node().scopeName().split('/')[-1])
    is_layer = isinstance(owner, (_BatchNorm, nn.ReLU, nn.ReLU6))
    return prod(outputs[0].type().sizes()) if is_layer else 0
