"""Res2Net with its computation reallocated, or searchable (CR-NAS, Sec. 3)."""

from mmdet.models.backbones.res2net import Res2Net
from torch import nn

from mmcr.checks import check_integer
from mmcr.models.backbones.resnet import CRResNet
from mmcr.registry import MODELS


@MODELS.register_module()
class CRRes2Net(CRResNet, Res2Net):
    """mmdet's `Res2Net`, reallocated or searchable; options in `ReallocatedBackbone`.

    A block dilates all of its 3x3 convolutions alike. With `depth` alone it is
    Res2Net-26w-4s.

    In mmdet the inner width of a block does not depend on `base_channels`. Here
    `base_width`, unless it is given, follows, as `CRResNeXt`'s does.

    Args:
        depth: 50, 101 or 152.
        base_width: Channels of a scale in the first stage; ``None``: 26 for
            ``base_channels=64``, and in proportion for others, at least 1.
        base_channels: Width of the stages, as in ResNet.
    """

    mmdets_defaults = dict(base_width=26)
    width_of_64 = 26  # of a scale

    def __init__(
        self,
        depth: int,
        *args,
        base_width: int | None = None,
        base_channels: int = 64,
        **options,
    ) -> None:
        check_integer('base_channels', base_channels)
        follows = base_width is None
        if follows:
            base_width = self.width_with(base_channels)
        check_integer('base_width', base_width)
        super().__init__(
            depth,
            *args,
            base_width=base_width,
            base_channels=base_channels,
            **options,
        )
        if follows:  # a found network that is built at another width follows too
            del self._fixed_cfg['base_width']

    def _dilating(self, block: nn.Module) -> tuple[nn.Module, str, str | None]:
        return block, 'convs', 'bns'
