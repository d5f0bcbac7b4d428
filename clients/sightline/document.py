"""`levels: document`: paper becomes the ground, ink the full scale, also under uneven light.

Everything is counted in whole numbers, so that no processor and no library of linear algebra can round otherwise. docs/preprocessing.md
says the same in words, exactly enough for a second implementation.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

Plane = npt.NDArray[np.uint8]
"""One channel of samples (H, W)."""

LEVELS: Final = np.arange(256, dtype=np.int64)

TILES: Final = 16
"""The ground is measured in so many tiles a side."""
RIM: Final = 16
"""The image's border is 1/RIM of its shorter side wide."""
STROKE_TILES: Final = 5
"""A stroke is narrower than so many tiles: what is as dark over more of the image is a shadow on the paper, not ink."""
LEAST_ROOM: Final = 128
"""Levels: the room between ground and full ink that is assumed at least. On a grey ground, little noise would else be made much of."""
LEAST_INK: Final = 40
"""Levels of 255 that ink must stand out from its ground: soft pencil does by 60 and more, the grain of paper by 20."""
NOISE_RATIO: Final = 4
"""Strokes begin at so many times the median deviation from the ground, and their ink must reach twice that."""
EDGE_CELLS: Final = 64
EDGE_SHARE: Final = 5
"""In an image averaged into EDGE_CELLS cells a side, strokes change by 1/EDGE_SHARE of their ink from one cell to the next somewhere;
a soft shadow does not."""


@dataclass(frozen=True)
class Document:
    """Strokes, apart from what they were drawn on."""

    ink: Plane
    """0 where there is none, 255 where the strokes are full; (H, W)."""
    dark: bool
    """Whether they are darker than the ground."""


def document(plane: Plane) -> Document:
    """Return the strokes of an image of ink on paper, or of chalk on slate: uint8 (H, W). Without strokes the ink is 0 everywhere."""
    height, width = plane.shape
    dark = _is_ink_dark(plane)
    ground = _ground(plane, dark).astype(np.int32)
    above_ground = ground - plane if dark else plane - ground
    room = np.maximum(ground if dark else 255 - ground, LEAST_ROOM)
    deviation = np.minimum(np.abs(above_ground) * 255 // room, 255)
    ink = np.where(above_ground > 0, deviation, 0).astype(np.uint8)
    full = full_ink(ink)
    # Most of a tiny image may be ink, so that its median says nothing of noise.
    floor = NOISE_RATIO * _median(deviation) if min(plane.shape) >= TILES else 0
    if full < max(LEAST_INK, 2 * floor, 1) or not _has_edges(ink, full):
        return Document(np.zeros((height, width), np.uint8), dark)
    # Of 256 values each is computed once.
    scale = np.clip((LEVELS - floor) * 255 // (full - floor), 0, 255).astype(np.uint8)
    return Document(scale[ink], dark)


def _is_ink_dark(plane: Plane) -> bool:
    """Whether strokes are darker than their ground: which side of it reaches further, by fourth powers.

    The ground is the median of each quarter, which a shadow over half of the image does not mislead, and once more that of the image's
    border, which strokes that fill the image do not.
    """
    high, wide = -(-plane.shape[0] // 2), -(-plane.shape[1] // 2)
    quarters = plane[:high, :wide], plane[:high, -wide:], plane[-high:, :wide], plane[-high:, -wide:]
    counts = np.array([np.bincount(quarter.ravel(), minlength=256) for quarter in quarters])
    medians = (counts.cumsum(axis=1) > high * wide // 2).argmax(axis=1)
    rim = max(1, min(plane.shape) // RIM)
    whole = np.bincount(plane.ravel(), minlength=256)
    border = whole - np.bincount(plane[rim:-rim, rim:-rim].ravel(), minlength=256)
    median = (border.cumsum() > border.sum() // 2).argmax()
    reach = int((counts * _signed_fourth_powers(medians)).sum()) + int((whole * _signed_fourth_powers(median)).sum())
    return reach < 0


def _signed_fourth_powers(medians: npt.NDArray[np.int64] | np.int64) -> npt.NDArray[np.int64]:
    """Of each level's distance to a median, negative below it: (256,) or, of several, (N, 256)."""
    distances = LEVELS - np.asarray(medians)[..., None]
    squares = distances * distances
    return np.asarray(squares * squares * np.sign(distances))


def _ground(plane: Plane, dark: bool) -> Plane:
    """The level of the ground at each pixel (H, W): a quartile of each tile, strokes closed over, interpolated between the tiles.

    An image too small for tiles has one level of ground, as one tile.
    """
    height, width = plane.shape
    if min(plane.shape) < TILES:
        tiles = plane.reshape(1, 1, -1)
    else:
        rows, columns = _tiles(height), _tiles(width)
        tiles = plane[rows[:, None, :, None], columns[None, :, None, :]].reshape(TILES, TILES, -1)
    last = tiles.shape[-1] - 1
    # The quartile on the paper's side, since strokes may fill more than half of a tile.
    rank = last - last // 4 if dark else last // 4
    levels = Image.fromarray(np.ascontiguousarray(np.partition(tiles, rank, axis=-1)[..., rank]))
    over, back = ImageFilter.MaxFilter(STROKE_TILES), ImageFilter.MinFilter(STROKE_TILES)
    closed = levels.filter(over).filter(back) if dark else levels.filter(back).filter(over)
    darkest, lightest = closed.getextrema()
    if darkest == lightest:
        return np.full((height, width), darkest, np.uint8)
    filled = closed.resize((width, closed.height), Image.Resampling.BILINEAR).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(filled)


@lru_cache(maxsize=64)
def _tiles(length: int) -> npt.NDArray[np.int64]:
    """Indices [TILES, pixels a tile] of tiles of one size that cover a side; they overlap where it cannot be divided."""
    side = -(-length // TILES)
    firsts = np.arange(TILES) * (length - side) // (TILES - 1)
    return firsts[:, None] + np.arange(side)


def full_ink(ink: Plane) -> int:
    """The level that a tenth of the strokes' samples reach; strokes are what Otsu's threshold (1979) parts from the ground."""
    counts = np.bincount(ink.ravel(), minlength=256)
    number, total = counts.cumsum(), (counts * LEVELS).cumsum()
    below, above = number[:-1], number[-1] - number[:-1]
    # The variance between the two classes, times the square of the number of samples: whole numbers until the one division.
    parted = (below > 0) & (above > 0)
    difference = (total[:-1] * number[-1] - total[-1] * below).astype(np.float64)
    variance = np.where(parted, difference * difference / np.maximum(below * above, 1), -1.0)
    threshold = int(variance.argmax())
    if not parted[threshold]:
        return 0
    # As many samples reach a level as lie above the one before it.
    return int(np.flatnonzero(above * 10 >= above[threshold])[-1]) + 1


def _has_edges(ink: Plane, full: int) -> bool:
    cells = ink
    if max(ink.shape) > EDGE_CELLS:
        image = Image.fromarray(ink)
        size = min(image.width, EDGE_CELLS), min(image.height, EDGE_CELLS)
        cells = np.asarray(image.resize((size[0], image.height), Image.Resampling.BOX).resize(size, Image.Resampling.BOX))
    levels = cells.astype(np.int16)
    down, across = np.abs(levels[1:] - levels[:-1]), np.abs(levels[:, 1:] - levels[:, :-1])
    return max(int(down.max(initial=0)), int(across.max(initial=0))) * EDGE_SHARE >= full


def _median(samples: npt.NDArray[np.int32]) -> int:
    """The upper median of levels 0..255."""
    return int(np.searchsorted(np.bincount(samples.ravel(), minlength=256).cumsum(), samples.size // 2, side="right"))
