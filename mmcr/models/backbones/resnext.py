"""ResNeXt with its computation reallocated, or searchable (CR-NAS, Sec. 3)."""

from mmdet.models.backbones.resnext import ResNeXt

from mmcr.checks import check_integer, is_integer
from mmcr.errors import UserError
from mmcr.models.backbones.resnet import CRResNet
from mmcr.registry import MODELS


@MODELS.register_module()
class CRResNeXt(CRResNet, ResNeXt):
    """mmdet's `ResNeXt`, reallocated or searchable; options in `ReallocatedBackbone`.

    The 3x3 that dilates is the grouped one in the middle of the bottleneck. With
    `depth` alone it is ResNeXt-32x4d.

    In mmdet the inner width of a bottleneck does not depend on `base_channels`. Here
    `base_width`, unless it is given, follows: a half-width supernet
    (``base_channels=32``) is 32x2d, and every convolution of its stages costs a
    quarter, as in ResNet's. To halve the number of groups instead, set ``groups=16,
    base_width=4``.

    Args:
        depth: 50, 101 or 152.
        groups: Groups of the 3x3 convs.
        base_width: Channels of a group in the first stage; ``None``: 4 for
            ``base_channels=64``, and in proportion for others, at least 1.
        base_channels: Width of the stages, as in ResNet.
    """

    mmdets_defaults = dict(groups=1, base_width=4)
    width_of_64 = 4  # of a group

    def __init__(
        self,
        depth: int,
        *args,
        groups: int = 32,
        base_width: int | None = None,
        base_channels: int = 64,
        **options,
    ) -> None:
        check_integer('base_channels', base_channels)
        follows = base_width is None
        if follows:
            base_width = self.width_with(base_channels)
        if not is_integer(groups, 1) or not is_integer(base_width, 1):
            raise UserError(
                f'groups and base_width must be at least 1, but got '
                f'groups={groups!r}, base_width={base_width!r}.'
            )
        super().__init__(
            depth,
            *args,
            groups=groups,
            base_width=base_width,
            base_channels=base_channels,
            **options,
        )
        if follows:  # a found network that is built at another width follows too
            del self._fixed_cfg['base_width']
