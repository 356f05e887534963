"""Architectures drawn block by block (after CR-NAS, Fig. 4)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import log2
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from matplotlib.text import Text

from mmcr.errors import UserError

# From light to dark, and apart in hue for the colour-blind too.
COLOURS = {1: '#a9cfe6', 2: '#f0a830', 3: '#8c2d4e'}
RULE = dict(color='#e3e7ea', linewidth=0.8)
LIGHT = (COLOURS[1], COLOURS[2])  # what stands in these is dark
OTHER_COLOUR = '#333333'  # further dilations; the number stands in the block
INK, QUIET, STEM = '#1c2530', '#5c6873', '#d5dade'

# All lengths in inches: the axes span the figure.
MARGIN, TITLE, ROW_GAP = 0.25, 0.4, 0.3
TALLEST, SHRINK = 0.95, 0.76  # height of the first stage's blocks, at half the size
STEM_WIDTH, STAGE_GAP, MIN_STAGE = 0.26, 0.3, 0.58
LABELS = 0.44  # below the blocks
WIDEST, NARROWEST, ALL_BLOCKS = 0.68, 0.17, 8.0  # block to block; longest row
LEGEND, LEGEND_STEP, MIN_WIDTH = 0.34, 0.62, 7.0
STRIDES = (4, 8, 16, 32)  # of most backbones
HEIGHT = 'height: resolution of the stage'
LETTER = 0.084  # mean width of one in a title, rounded up
SMALL_LETTER = 0.076  # likewise in the legend
ROW = TITLE + TALLEST + LABELS


@dataclass(frozen=True)
class Legend:
    """What the values of blocks mean, and how blocks that have them look."""

    name: str  # of the values, in the plural
    title: str  # what they say of a block
    colours: Mapping[int, str]
    labels: Mapping[int, str] = field(default_factory=dict)  # where values do not do

    def colour(self, value: int) -> str:
        """The colour of a block."""
        return self.colours.get(value, OTHER_COLOUR)

    def label(self, value: int) -> str:
        """What stands in a block."""
        return self.labels.get(value, str(value))


DILATIONS = Legend('dilations', 'dilation of the 3×3 convolution', COLOURS)
KINDS = Legend(
    'kinds',
    'depthwise kernel, X: Xception block',
    {0: COLOURS[1], 1: COLOURS[2], 2: COLOURS[3], 3: '#2f7d6b'},
    {0: '3', 1: '5', 2: '7', 3: 'X'},
)


@dataclass(frozen=True)
class Network:
    """A backbone to draw; a UserError where its values do not fit its blocks."""

    name: str
    stage_blocks: Sequence[int]  # per stage (tau)
    # per stage one value per block, or one for all; None: all 1
    values: Sequence[int | Sequence[int]] | None = None
    caption: str = ''  # at the right of the name: cost, AP
    legend: Legend = DILATIONS
    # as `stage_strides` of a searchable backbone; None: `STRIDES` for up to four stages
    strides: Sequence[int] | None = None

    def __post_init__(self) -> None:
        if self.strides is None and len(self.stage_blocks) <= len(STRIDES):
            object.__setattr__(self, 'strides', STRIDES[: len(self.stage_blocks)])
        if (
            self.values
            and len(self.values) != len(self.stage_blocks)
            or [len(stage) for stage in self.blocks] != list(self.stage_blocks)
        ):
            raise UserError(
                f'{self.legend.name} must give a value for each of the blocks '
                f'{list(self.stage_blocks)}, but got {self.values}.'
            )

    @property
    def blocks(self) -> list[list[int]]:
        """The value of every block, per stage."""
        values = self.values or [1] * len(self.stage_blocks)
        return [
            [stage] * blocks if isinstance(stage, int) else list(stage)
            for stage, blocks in zip(values, self.stage_blocks)
        ]

    @property
    def tau(self) -> str:
        return f'τ = {list(self.stage_blocks)}'

    @property
    def text(self) -> str:
        """The labels of all blocks, with a space between stages."""
        return ' '.join(''.join(map(self.legend.label, s)) for s in self.blocks)


def draw_architectures(networks: Sequence[Network], path: str | Path) -> None:
    """Draws networks into a file, whose suffix chooses the format (png, svg, pdf)."""
    architecture_figure(networks).savefig(path, dpi=200)


def architecture_figure(networks: Sequence[Network]) -> Figure:
    """Draws the networks, one at least and all with one legend, one above the other.

    A block is as wide in every row, lower where the resolution is lower, and has the
    colour of its value.
    """
    blocks = max(sum(network.stage_blocks) for network in networks)
    pitch = max(NARROWEST, min(WIDEST, ALL_BLOCKS / blocks))
    titles = [f'{net.name}   {net.tau}   {net.caption}' for net in networks]
    width = 2 * MARGIN + max(
        MIN_WIDTH,
        LETTER * max(map(len, titles)),
        _legend_width(networks),
        *(
            STEM_WIDTH + sum(STAGE_GAP + w for w in _stage_widths(network, pitch))
            for network in networks
        ),
    )
    height = MARGIN + LEGEND + len(networks) * (ROW + ROW_GAP)
    figure = Figure(figsize=(width, height), facecolor='white')
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(height, 0))  # y runs down, as one reads
    axes.axis('off')
    for i, network in enumerate(networks):
        top = MARGIN + i * (ROW + ROW_GAP)
        if i:
            axes.hlines(top - ROW_GAP / 2 - 0.03, MARGIN, width - MARGIN, **RULE)
        _draw_title(axes, network, top, width)
        _draw_row(axes, network, top + TITLE, pitch)
    _draw_legend(axes, networks, height - LEGEND)
    return figure


def _stage_widths(network: Network, pitch: float) -> list[float]:
    return [max(blocks * pitch, MIN_STAGE) for blocks in network.stage_blocks]


def _write(axes: Axes, x: float, y: float, text: str, **style) -> Text:
    return axes.text(x, y, text, **dict(color=QUIET, va='baseline') | style)


def _draw_title(axes: Axes, network: Network, top: float, width: float) -> None:
    y = top + 0.2
    name = _write(axes, MARGIN, y, network.name, size=12, weight='bold', color=INK)
    axes.annotate(
        network.tau,
        xy=(1, y),
        xycoords=(name, 'data'),
        xytext=(10, 0),
        textcoords='offset points',
        size=10,
        color=QUIET,
        va='baseline',
    )
    _write(axes, width - MARGIN, y, network.caption, size=10, ha='right')


def _draw_row(axes: Axes, network: Network, top: float, pitch: float) -> None:
    middle, below = top + TALLEST / 2, top + TALLEST + 0.08
    centre = MARGIN + STEM_WIDTH / 2
    _draw_block(axes, MARGIN, middle, STEM_WIDTH, TALLEST, STEM)
    style = dict(size=8.5, ha='center')
    _write(axes, centre, middle, 'stem', rotation=90, **style, va='center')
    left = MARGIN + STEM_WIDTH
    slots = _stage_widths(network, pitch)
    for stage, (values, slot) in enumerate(zip(network.blocks, slots)):
        left += STAGE_GAP
        first = left + (slot - len(values) * pitch) / 2
        lines = [f'{len(values)} block' + 's' * (len(values) > 1)]
        halvings = stage
        if network.strides:
            lines.append(f'stride {network.strides[stage]}')
            halvings = log2(network.strides[stage] / network.strides[0])
        for block, value in enumerate(values):
            x = first + block * pitch
            colour = network.legend.colour(value)
            _draw_block(axes, x, middle, pitch, TALLEST * SHRINK**halvings, colour)
            _write(
                axes,
                x + pitch / 2,
                middle,
                network.legend.label(value),
                ha='center',
                va='center_baseline',
                size=9 if pitch > 0.2 else 7,
                color=INK if colour in LIGHT else 'white',
            )
        axes.hlines(below, left, left + slot, color=QUIET, linewidth=0.8)
        for line, (text, colour) in enumerate(zip(lines, (INK, QUIET))):
            y = below + 0.16 + 0.16 * line
            _write(axes, left + slot / 2, y, text, color=colour, **style)
        left += slot
    end = left - pitch / 2
    axes.hlines(middle, centre, end, color='#b9c2c9', linewidth=1.2, zorder=0)


def _draw_block(
    axes: Axes, left: float, middle: float, width: float, height: float, colour: str
) -> None:
    space = 0.12 * min(width, 0.3)  # to the next block
    axes.add_patch(
        FancyBboxPatch(
            (left + space / 2, middle - height / 2),
            width - space,
            height,
            facecolor=colour,
            edgecolor='none',
            boxstyle='round,pad=0,rounding_size=0.035',
        )
    )


def _draw_legend(axes: Axes, networks: Sequence[Network], top: float) -> None:
    legend, style = networks[0].legend, dict(size=9.5, va='center')
    _write(axes, MARGIN, top, legend.title, color=INK, **style)
    left = MARGIN + SMALL_LETTER * len(legend.title)
    for value in _legend_values(networks):
        _draw_block(axes, left, top, 0.24, 0.2, legend.colour(value))
        _write(axes, left + 0.32, top, legend.label(value), color=INK, **style)
        left += LEGEND_STEP
    _write(axes, left + 0.1, top, HEIGHT, **style)


def _legend_values(networks: Sequence[Network]) -> list[int]:
    used = {value for net in networks for stage in net.blocks for value in stage}
    return sorted({*networks[0].legend.colours, *used})


def _legend_width(networks: Sequence[Network]) -> float:
    letters = len(networks[0].legend.title + HEIGHT)
    blocks = LEGEND_STEP * len(_legend_values(networks))
    return SMALL_LETTER * letters + blocks + 0.1
