"""Effective receptive fields of a detector's feature levels (CR-NAS, Fig. 1).

After Luo et al., *Understanding the Effective Receptive Field in Deep Convolutional
Neural Networks*, NeurIPS 2016.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor, nn

from mmcr.errors import UserError
from mmcr.report.sketch import INK
from mmcr.report.tables import markdown_table

LEVELS = {8: 'P3', 16: 'P4', 32: 'P5'}  # by stride
SCALE = 8  # of anchors, in strides: 64, 128 and 256 pixels
SHARES = 0.5, 0.95  # of the gradient
WIDTH = 2.6  # of a panel, in inches


@dataclass(frozen=True)
class Field:
    """The effective receptive field of one level.

    Attributes:
        level: Such as P3.
        stride: Of the level, in pixels.
        gradient: How much each pixel of the input moves the level's centre, of shape
            (height, width); sums to 1.
        centre: Row and column of the pixel that the level's centre stands for.
    """

    level: str
    stride: int
    gradient: np.ndarray
    centre: tuple[int, int]

    @property
    def box(self) -> int:
        """Side of the level's anchor in pixels."""
        return SCALE * self.stride

    def side(self, share: float) -> float:
        """Side in pixels of a square as large as what holds `share` of the gradient.

        Of all areas that hold it, the smallest.
        """
        falling = np.sort(self.gradient, axis=None)[::-1].cumsum()
        return float(np.sqrt(1 + np.searchsorted(falling, share)))

    def within_box(self) -> float:
        """Share of the gradient inside the anchor around the centre."""
        rows, columns = (
            slice(max(0, middle - self.box // 2), middle + self.box // 2)
            for middle in self.centre
        )
        return float(self.gradient[rows, columns].sum())


def receptive_fields(detector: nn.Module, batches: Iterable[Tensor]) -> list[Field]:
    """Fields of the levels of `LEVELS` that a detector's neck gives out.

    The gradient of a level's centre, all of its channels, back to the input; absolute
    values, summed over the input's channels and averaged over images.

    Args:
        detector: With `extract_feat`, in eval mode.
        batches: Of images as the detector takes them, (N, 3, height, width), all of one
            height and width.

    Raises:
        UserError: None of the levels has such a stride, or a level's centre does not
            depend on the images.
    """
    sums: dict[int, np.ndarray] = {}
    centres = {}
    for images in batches:
        images = images.detach().requires_grad_()
        levels = {}
        for level in _levels(detector.extract_feat(images)):
            stride = round(images.shape[-1] / level.shape[-1])
            levels.setdefault(stride, level)
        levels = {stride: levels[stride] for stride in LEVELS if stride in levels}
        for stride, level in levels.items():
            row, column = (side // 2 for side in level.shape[-2:])
            centres[stride] = row * stride, column * stride
            (gradient,) = torch.autograd.grad(
                level[..., row, column].sum(), images, retain_graph=True
            )
            found = gradient.abs().sum(dim=(0, 1)).double().cpu().numpy()
            sums[stride] = sums.get(stride, 0) + found
    if not sums:
        raise UserError(
            f'Receptive fields are those of levels of stride {list(LEVELS)}, but the '
            f'neck of this detector gives out none of these.'
        )
    for stride, total in sums.items():
        if not np.isfinite(total).all() or not total.any():
            raise UserError(
                f'The centre of {LEVELS[stride]} must depend on the images, but its '
                f'gradient is zero or not finite. Give a trained checkpoint.'
            )
    return [
        Field(LEVELS[stride], stride, total / total.sum(), centres[stride])
        for stride, total in sums.items()
    ]


def _levels(features: object) -> list[Tensor]:
    """The feature maps among what `extract_feat` returns."""
    if isinstance(features, Tensor):
        return [features] if features.dim() == 4 else []
    if isinstance(features, Mapping):
        features = features.values()
    if isinstance(features, Iterable):
        return [level for each in features for level in _levels(each)]
    return []


def fields_table(networks: Mapping[str, Sequence[Field]]) -> str:
    """Sides of the fields, by network and level."""
    columns = ['network', 'level', 'anchor', 'half', '95%', 'inside the anchor']
    cells = [
        [
            name,
            field.level,
            f'{field.box}',
            *(f'{field.side(share):.0f}' for share in SHARES),
            f'{100 * field.within_box():.0f}%',
        ]
        for name, fields in networks.items()
        for field in fields
    ]
    return (
        f'{markdown_table(columns, cells, words=(0, 1))}\nSides in pixels: of the '
        f"level's anchor, and of a square as large as the least area that holds half "
        f"and 95% of the gradient of the level's centre.\n"
    )


def fields_record(networks: Mapping[str, Sequence[Field]]) -> dict[str, list[dict]]:
    """What the table says, for programs."""
    return {
        name: [
            dict(
                level=field.level,
                stride=field.stride,
                anchor=field.box,
                sides={f'{share:g}': field.side(share) for share in SHARES},
                within_anchor=field.within_box(),
            )
            for field in fields
        ]
        for name, fields in networks.items()
    }


def fields_figure(networks: Mapping[str, Sequence[Field]]) -> Figure:
    """A row per network, a column per level, the level's anchor over each field.

    The brightness is the square root of the gradient, or only its peak would be seen.
    """
    columns = max(len(fields) for fields in networks.values())
    size = WIDTH * columns, WIDTH * len(networks) + 0.2
    figure = Figure(figsize=size, layout='constrained')
    axes = figure.subplots(len(networks), columns, squeeze=False)
    for panels, (name, fields) in zip(axes, networks.items()):
        for place in panels[len(fields) :]:
            place.set_axis_off()
        for place, field in zip(panels, fields):
            place.imshow(np.sqrt(field.gradient), cmap='magma')
            row, column = (middle - (field.box + 1) / 2 for middle in field.centre)
            place.add_patch(
                Rectangle(
                    (column, row), field.box, field.box, fill=False, edgecolor='white'
                )
            )
            sides = ', '.join(f'{field.side(share):.0f}' for share in SHARES)
            place.set_title(f'{field.level}: {sides} px', fontsize=8, color=INK)
            place.set_xticks([])
            place.set_yticks([])
        panels[0].set_ylabel(name, fontsize=8, color=INK, parse_math=False)
    return figure
