"""What a detector costs beside its backbone, in multiply-accumulates."""

import copy
from collections.abc import Mapping

import torch
from mmdet.models.roi_heads.roi_extractors import BaseRoIExtractor
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.model import revert_sync_batchnorm
from mmengine.structures import InstanceData
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mmcr.errors import UserError
from mmcr.models.detector import backbone_returns, has_rois

TRACED_ROIS = 4  # any number: what an RoI costs does not depend on it


def macs_beside_backbone(
    model: Mapping, backbone_cfg: Mapping, channels: list[int], shape: tuple[int, int]
) -> int:
    """Counts neck and heads of a detector for one image.

    Counted are convolutions and matrix products, for as many RoIs as the config's RPN
    passes on at test time and, in mask heads, as it has detections per image. What an
    RoI extractor computes by itself is left out.

    Args:
        model: Config of the detector of a supernet.
        backbone_cfg: Of the network to be found, in the place of the supernet.
        channels: Of its outputs, which the neck takes.
        shape: Height and width of the image in pixels.

    Raises:
        UserError: A layer needs more than shapes to run.
    """
    cfg = copy.deepcopy(dict(model))
    cfg['backbone'] = dict(backbone_cfg)
    neck = cfg.get('neck')
    if neck is not None:
        first = neck[0] if isinstance(neck, (list, tuple)) else neck
        first['in_channels'] = channels
    counter = FlopCounterMode(display=False)
    try:
        with torch.random.fork_rng(devices=[]), torch.device('meta'):
            detector = revert_sync_batchnorm(MODELS.build(cfg)).to('meta').eval()
            images = torch.zeros(1, 3, *shape)
            _replace_extractors(detector)
            with torch.no_grad():
                features = detector.backbone(images)
                with backbone_returns(detector, features), counter:
                    AllLayers(detector)(images)
    except Exception as error:  # whatever a detector's own forward raises
        raise UserError(
            f"a detector is counted by a forward on torch's device meta, but this one "
            f'({cfg.get("type")}) cannot run there: {error}. Give a budget of the '
            f'backbone.'
        ) from error
    flops = {
        name.removeprefix('AllLayers.detector.'): sum(by_operator.values())
        for name, by_operator in counter.get_flop_counts().items()
    }
    total = flops['Global']
    if has_rois(detector):
        for part, rois in (
            ('bbox_head', detector.test_cfg.rpn.max_per_img),
            ('mask_head', detector.test_cfg.rcnn.max_per_img),
        ):
            traced = _flops_of(f'roi_head.{part}', flops)
            total += traced // TRACED_ROIS * rois - traced
    return total // 2


class AllLayers(nn.Module):
    """All layers of a detector once, without what depends on weights' values.

    Its forward takes images, ``N x 3 x H x W``; heads of RoIs get `TRACED_ROIS` of
    them.
    """

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, images: Tensor) -> tuple:
        size = tuple(images.shape[-2:])
        sample = DetDataSample(metainfo=dict(img_shape=size, batch_input_shape=size))
        if not has_rois(self.detector):
            return self.detector(images, [sample], mode='tensor')
        features = self.detector.extract_feat(images)
        boxes = images.new_tensor([[0, 0, 16, 16]]).repeat(TRACED_ROIS, 1)
        # a trace drops what does not reach the result
        return self.detector.rpn_head(features), self.detector.roi_head.forward(
            features, [InstanceData(bboxes=boxes)], [sample]
        )


class _Regions(nn.Module):
    """Stands for an RoI extractor, which picks levels by the values of boxes."""

    def __init__(self, extractor: BaseRoIExtractor) -> None:
        super().__init__()
        self.num_inputs = extractor.num_inputs
        self.size = extractor.out_channels, *extractor.roi_layers[0].output_size

    def forward(
        self, features: tuple[Tensor, ...], rois: Tensor, *args, **options
    ) -> Tensor:
        return features[0].new_zeros(len(rois), *self.size)


def _replace_extractors(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, BaseRoIExtractor):
            setattr(module, name, _Regions(child))
        else:
            _replace_extractors(child)


def _flops_of(module: str, flops: Mapping[str, int]) -> int:
    """Of a head, or of all heads of a list: lists do not run by themselves."""
    if module in flops:
        return flops[module]
    return sum(
        n
        for name, n in flops.items()
        if name.startswith(f'{module}.') and name.removeprefix(f'{module}.').isdigit()
    )
