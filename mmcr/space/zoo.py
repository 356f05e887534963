"""The architectures that the papers publish (CR-NAS, Tables 5 and 6; DetNAS)."""

from dataclasses import dataclass
from itertools import islice

from mmcr.space.detnas import Blocks


@dataclass(frozen=True)
class Published:
    """A backbone before and after computation reallocation.

    Args:
        depth: The number in the network's name; None where it has none.
        baseline: Blocks per stage of the classifier's backbone.
        stage_cr: Blocks per stage after stage reallocation, as many in all.
        dilation_code: For every block of `stage_cr` 0, 1 or 2 for dilation 1, 2
            or 3; None where the paper publishes none.
    """

    depth: int | None
    baseline: tuple[int, ...]
    stage_cr: tuple[int, ...]
    dilation_code: tuple[int, ...] | None = None

    @property
    def _coded(self) -> tuple[int, ...]:
        """How many entries of the code belong together."""
        return self.stage_cr

    @property
    def dilations(self) -> tuple[tuple[int, ...], ...] | None:
        """The dilation rates of `stage_cr`'s blocks by stage, None if unpublished."""
        if self.dilation_code is None:
            return None
        rates = (code + 1 for code in self.dilation_code)
        return tuple(tuple(islice(rates, blocks)) for blocks in self._coded)


@dataclass(frozen=True)
class PublishedMobileNetV2(Published):
    """MobileNetV2, which has no depth, before and after reallocation.

    `baseline` and `stage_cr` are the five searched numbers; the dilation code has
    an entry for everything that the paper's ten numbers count, 0 for the stem, the
    1x1 conv and the classifier. `dilations` are those of the seven stages with a
    depthwise 3x3: stage 0, the searched ones, stage 6.
    """

    @property
    def _coded(self) -> tuple[int, ...]:
        return (1, 1, *self.stage_cr, 1, 1, 1)

    @property
    def dilations(self) -> tuple[tuple[int, ...], ...] | None:
        """The dilation rates of all inverted residuals by stage, 0 to 6."""
        rates = super().dilations
        return None if rates is None else rates[1:-2]


# fmt: off
PUBLISHED = {
    'r18': Published(18, (2, 2, 2, 2), (1, 1, 2, 4), (
        0,
        0,
        1, 0,
        1, 0, 2, 1)),
    'r50': Published(50, (3, 4, 6, 3), (1, 3, 5, 7), (
        0,
        0, 1, 0,
        0, 0, 1, 2, 0,
        0, 1, 0, 2, 1, 1, 2)),
    'r101': Published(101, (3, 4, 23, 3), (2, 3, 17, 11), (
        0, 0,
        0, 0, 0,
        0, 1, 0, 1, 0, 0, 0, 2, 0, 0, 0, 1, 0, 1, 0, 1, 0,
        1, 1, 0, 0, 1, 0, 1, 2, 0, 1, 1)),
    'x50': Published(50, (3, 4, 6, 3), (2, 2, 6, 6)),
    # 15 blocks in stage 3 are not among the paper's own choices for that stage:
    # any backbone accepts them, the stage space does not.
    'x101': Published(101, (3, 4, 23, 3), (3, 4, 15, 11)),
    'mobilenetv2': PublishedMobileNetV2(None, (2, 3, 4, 3, 3), (2, 2, 3, 4, 4), (
        0,
        1,
        0, 1,
        0, 2,
        0, 1, 1,
        0, 0, 1, 1,
        0, 1, 1, 0,
        2,
        0,
        0)),
}
# fmt: on


@dataclass(frozen=True)
class PublishedDetNAS:
    """A backbone that DetNAS found, with the figures published for it.

    Args:
        net: Its size, a key of `DETNAS_NETS`.
        blocks: Kinds of its blocks by stage.
        macs: Multiply-accumulates at 224x224 of the classifier.
        backbone_macs: Of stem and blocks alone.
        params: Of the classifier, in millions, without the biases of stem and last
            convolution.
        backbone_params: Of stem and blocks alone.
        top1_error: On ImageNet, in percent.
        ap: On COCO minival, or mAP on VOC 2007 test, in percent.
        ap_pytorch: The same of the authors' second implementation; None: none.
    """

    net: str
    blocks: Blocks
    macs: int
    backbone_macs: int
    params: float
    backbone_params: float
    top1_error: float
    ap: float
    ap_pytorch: float | None = None


# The two of VOC are beyond the 300M of the backbone that bound a search.
# fmt: off
_COCO_FPN_LARGE = (
    (0, 0, 3, 1, 2, 1, 0, 2),
    (0, 3, 1, 2, 3, 3, 2, 0),
    (2, 1, 1, 3, 2, 0, 2, 2, 2, 1, 3, 1, 0, 3, 3, 3),
    (1, 3, 3, 3, 3, 3, 3, 3))
DETNAS_PUBLISHED = {
    'coco-fpn_300M': PublishedDetNAS(
        '300M',
        ((2, 1, 2, 0), (2, 1, 1, 2), (3, 3, 1, 3, 0, 0, 3, 1), (3, 1, 3, 2)),
        321_219_008, 288_082_368, 3.532, 1.850, 26.2, 36.4, 36.6),
    'coco-retinanet_300M': PublishedDetNAS(
        '300M',
        ((2, 3, 1, 1), (3, 2, 1, 3), (3, 1, 1, 1, 3, 3, 2, 0), (3, 3, 3, 3)),
        324_342_464, 291_205_824, 3.724, 2.042, 26.0, 33.3, 34.1),
    'voc-fpn_300M': PublishedDetNAS(
        '300M',
        ((2, 1, 0, 3), (1, 3, 0, 3), (2, 0, 1, 1, 3, 3, 3, 3), (3, 3, 3, 1)),
        349_524_544, 316_387_904, 3.650, 1.968, 25.9, 81.5),
    'voc-retinanet_300M': PublishedDetNAS(
        '300M',
        ((1, 3, 0, 0), (2, 3, 3, 3), (2, 3, 3, 3, 3, 2, 2, 0), (2, 3, 1, 1)),
        360_625_984, 327_489_344, 3.478, 1.796, 25.4, 80.1),
    'coco-fpn_1.3G': PublishedDetNAS(
        '1.3G', _COCO_FPN_LARGE,
        1_318_374_496, 1_269_181_536, 10.425, 8.415, 22.8, 40.0, 40.3),
    'coco-fpn_3.8G': PublishedDetNAS(
        '3.8G', _COCO_FPN_LARGE,
        4_085_874_080, 3_937_832_864, 31.443, 26.724, 21.6, 42.0),
}
# fmt: on
