"""RegNet with its computation reallocated, or searchable (CR-NAS, Sec. 3)."""

from collections.abc import Mapping, Sequence

from mmdet.models.backbones.regnet import RegNet

from mmcr.errors import UserError
from mmcr.models.backbones.resnet import ResNetStages
from mmcr.models.reallocated_backbone import checked_blocks
from mmcr.registry import MODELS
from mmcr.space import RESNET_STAGES, Choice

PARAMETERS = {'w0', 'wa', 'wm', 'depth', 'group_w', 'bot_mul'}


@MODELS.register_module()
class CRRegNet(ResNetStages, RegNet):
    """mmdet's `RegNet`, reallocated or searchable; options in `ReallocatedBackbone`.

    The 3x3 that dilates is the grouped one. The stage supernet chooses among the
    numbers of blocks of ResNet's and the baseline's own. Channels do not double from
    stage to stage, so blocks cost differently: give a search a budget in MACs,
    parameters or milliseconds. `arch` is a name ('regnetx_3.2gf') or parameters, as in
    mmdet, and decides the widths of the stages and the default of `stage_blocks`.
    """

    default_budget = 'macs'
    stem_stride = 2  # it does not pool

    def __init__(
        self,
        arch: str | Mapping[str, float],
        stage_blocks: Sequence[int] | None = None,
        dilations: Sequence[int | Sequence[int]] | None = None,
        **options,
    ) -> None:
        baseline = self._baseline(arch)
        choices = [
            Choice(choice.name, sorted({*choice.values, blocks}))
            for choice, blocks in zip(RESNET_STAGES, baseline)
        ]
        stage_blocks = checked_blocks(stage_blocks, baseline)
        mmdets = self._reallocate(
            dict(arch=arch), stage_blocks, dilations, choices, **options
        )
        super().__init__(arch, dilations=self._mmdets_dilations(), **mmdets)
        self._complete()

    def _baseline(self, arch: str | Mapping[str, float]) -> list[int]:
        """Blocks per stage of mmdet's own network."""
        given = self.arch_settings.get(arch) if isinstance(arch, str) else arch
        if not isinstance(given, Mapping) or set(given) != PARAMETERS:
            raise UserError(
                f'arch must be one of {list(self.arch_settings)} or a dict of '
                f'{sorted(PARAMETERS)}, but got {arch!r}.'
            )
        numbers = (given[name] for name in ('w0', 'wa', 'wm', 'depth'))
        widths, _ = self.generate_regnet(*numbers)
        return super().get_stages_from_blocks(widths)[1]

    def get_stages_from_blocks(self, widths: list[int]) -> tuple[Sequence[int], ...]:
        """Widths and numbers of blocks by stage; mmdet's constructor calls this."""
        return super().get_stages_from_blocks(widths)[0], self.stage_blocks

    @property
    def stage_channels(self) -> Sequence[int]:
        """Channels of each stage's result."""
        return self.stage_widths
