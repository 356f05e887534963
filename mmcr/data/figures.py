"""The figures of the embedded data set: one drawing rule per class.

Six classes in three pairs. *Plain* figures differ in their outline.
*Textured* ones share outlines and colours: the pattern of cells of two or
three pixels tells them apart, whatever the size of the object. *Relational*
ones are large plates with a half light, half dark disc at either end: which
half of a disc is light is even in both classes, only whether the two discs
agree tells them apart. A detector thus needs fine resolution for the second
pair and a wide receptive field for the third. No class changes by a flip.
"""

from dataclasses import dataclass

import cv2
import numpy as np

CLASSES = ('triangle', 'cross', 'striped', 'checkered', 'matched', 'mismatched')
PLAIN, TEXTURED, RELATIONAL = CLASSES[:2], CLASSES[2:4], CLASSES[4:]
KINDS = {
    **dict.fromkeys(PLAIN, 'plain'),
    **dict.fromkeys(TEXTURED, 'textured'),
    **dict.fromkeys(RELATIONAL, 'relational'),
}
MIN_PLATE = 48  # pixels: below, a plate's discs can no longer be told apart


@dataclass(frozen=True)
class Figure:
    """A drawn object before it has a place and a colour.

    Attributes, all of shape (height, width):
        mask: Its pixels, bool, tight.
        tone: Brightness relative to the colour it will be given, int16.
        guarded: The pixels without which its class cannot be known, bool.
    """

    mask: np.ndarray
    tone: np.ndarray
    guarded: np.ndarray


def draw_figure(rng: np.random.Generator, name: str, size: float) -> Figure:
    """Draw an object of class `name` whose longer side is `size` pixels.

    The two classes of a pair take the same draws from `rng`: equal states
    give figures that differ in what defines the class and in nothing else.
    """
    draw = dict(plain=_plain, textured=_textured, relational=_relational)
    return draw[KINDS[name]](rng, name, size)


def _regular(corners: int) -> np.ndarray:
    turn = 2 * np.pi * np.arange(corners) / corners
    return np.stack([np.cos(turn), np.sin(turn)], axis=1)


_ARM = 0.36  # half the width of the cross's arms
_QUARTER = np.array([(1, -_ARM), (1, _ARM), (_ARM, _ARM)])
_TURNS = [np.linalg.matrix_power([(0, 1), (-1, 0)], n) for n in range(4)]
_OUTLINES = {
    'triangle': _regular(3),
    'cross': np.concatenate([_QUARTER @ turn for turn in _TURNS]),
    'hexagon': _regular(6),
    'disc': _regular(40),
}


def _posed(outline: str, size: float, elongation: float, angle: float) -> np.ndarray:
    """Corners (x, y), centred on (0, 0), of an outline of the given size."""
    cos, sin = np.cos(angle), np.sin(angle)
    points = _OUTLINES[outline] * (1, elongation) @ [(cos, sin), (-sin, cos)]
    # Corners are centres of pixels, of which a line of n spans n - 1.
    return points * (size - 1) / np.ptp(points, axis=0).max()


def _filled(points: np.ndarray, shape: tuple) -> np.ndarray:
    mask = np.zeros(shape, np.uint8)
    cv2.fillPoly(mask, [np.round(points * 16).astype(np.int32)], 1, shift=4)
    return mask.astype(bool)


def _silhouette(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mask of an outline and the place of its (0, 0) in the mask."""
    centre = -points.min(axis=0)
    width, height = np.ceil(np.ptp(points, axis=0)).astype(int) + 1
    mask = _filled(points + centre, (height, width))
    left, top, width, height = cv2.boundingRect(mask.astype(np.uint8))
    return mask[: top + height, : left + width], centre


def _plain(rng: np.random.Generator, name: str, size: float) -> Figure:
    # Near upright, the triangle on its base: these are the easy classes.
    angle = rng.uniform(-0.35, 0.35) - np.pi / 2
    elongation = rng.uniform(0.75, 1)
    mask, _ = _silhouette(_posed(name, size, elongation, angle))
    return Figure(mask, np.zeros(mask.shape, np.int16), np.zeros_like(mask))


def _textured(rng: np.random.Generator, name: str, size: float) -> Figure:
    outline = ('disc', 'hexagon')[rng.integers(2)]
    angle, elongation = rng.uniform(0, 2 * np.pi), rng.uniform(0.6, 1)
    cell = 2 if size < 32 else int(rng.integers(2, 4))
    phase, upright = rng.integers(2 * cell, size=2), rng.integers(2)

    mask, _ = _silhouette(_posed(outline, size, elongation, angle))
    rows, columns = np.indices(mask.shape, np.int16)
    down, across = (rows + phase[0]) // cell, (columns + phase[1]) // cell
    striped = across if upright else down
    bands = striped if name == 'striped' else down + across
    tone = np.where(bands % 2, 50, -50).astype(np.int16)
    return Figure(mask, tone, np.zeros_like(mask))


def _relational(rng: np.random.Generator, name: str, size: float) -> Figure:
    outline = ('disc', 'hexagon')[rng.integers(2)]
    angle, elongation = rng.uniform(-0.4, 0.4), rng.uniform(0.8, 1)  # near level
    first = bool(rng.integers(2))
    second = first if name == 'matched' else not first

    points = _posed(outline, size, elongation, angle)
    mask, centre = _silhouette(points)
    panel = _filled(points * 0.88 + centre, mask.shape)
    tone = np.where(panel, 0, -60).astype(np.int16)
    guarded = np.zeros_like(mask)

    # The discs sit at 0.56 of the long half axis and reach from 0.22 to 0.9 of
    # it: inside both outlines.
    reach = np.hypot(*points.T).max()
    radius = round(0.34 * reach)
    y, x = np.ogrid[-radius : radius + 1, -radius : radius + 1]
    disc = x**2 + y**2 <= radius**2
    light_above = np.broadcast_to(-80 * np.sign(y), disc.shape)
    offset = 0.56 * reach * np.array([np.cos(angle), np.sin(angle)])
    for place, above in ((centre - offset, first), (centre + offset, second)):
        x, y = np.round(place).astype(int)
        window = np.s_[y - radius : y + radius + 1, x - radius : x + radius + 1]
        tone[window][disc] = (light_above if above else light_above[::-1])[disc]
        guarded[window] |= disc
    return Figure(mask, tone, guarded & mask)
