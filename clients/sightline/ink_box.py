"""`frame: ink-box`: the strokes alone, scaled into a box and centred by their mass, as MNIST's own images were made.

LeCun et al. 1998 ("Gradient-based learning applied to document recognition", section III.A): digits were scaled into 20 x 20 pixels with
their aspect ratio, and put into 28 x 28 so that their centre of mass is in the centre. What is not part of the strokes (the frame of a
form, the edge of the sheet, dust) must not decide where they lie, so it is told from them by its shape.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

Plane = npt.NDArray[np.uint8]
"""Strokes on a ground of 0: uint8 (H, W)."""

STROKE: Final = 32
"""Ink of at least so much, of 255, is part of a stroke."""
DUST: Final = 200
"""What holds less than one in so many of the largest part's ink is dust."""
SPOT: Final = 20
"""What holds less than one in so many of it is a spot, and belongs to the strokes only near them …"""
SPOT_REACH: Final = 4
"""… within 1/SPOT_REACH of their longer side."""
COMPANION: Final = 8
"""What holds at least one in so many of another part's ink can be the strokes that this one surrounds, or stands beside."""
FRAMES: Final = 8
"""So many of the largest parts may be frames."""
RIM: Final = 8
"""A frame's ink lies in the outer 1/RIM of its bounding box on each side …"""
RIM_LEAK: Final = 20
"""… but for one pixel in so many."""


def box_side(side: int) -> int:
    """Return the side of the box in an image of `side` pixels: 20 in MNIST's 28."""
    return max(1, (20 * side + 14) // 28)


def ink_box(ink: Plane, size: tuple[int, int], scale: Callable[[Plane, int, int], Plane]) -> Plane:
    """Return uint8 `size` (height, width) with the strokes of `ink` in the middle; all 0 if there are none.

    `scale(plane, height, width)` resizes a plane.
    """
    high, wide = size
    canvas = np.zeros((high, wide), np.uint8)
    cut = _strokes(ink)
    if cut is None:
        return canvas
    height, width = cut.shape
    box_high, box_wide = box_side(high), box_side(wide)
    if box_high * width <= box_wide * height:
        scaled = scale(cut, box_high, max(1, (2 * box_high * width + height) // (2 * height)))
    else:
        scaled = scale(cut, max(1, (2 * box_wide * height + width) // (2 * width)), box_wide)
    # A thin pen pales when it shrinks; its ink is made full again.
    peak = int(scaled.max())
    if not peak:
        return canvas
    strokes = (scaled.astype(np.int64) * 255 + peak // 2) // peak
    top = _corner(strokes.sum(axis=1), high)
    left = _corner(strokes.sum(axis=0), wide)
    canvas[top : top + strokes.shape[0], left : left + strokes.shape[1]] = strokes
    return canvas


def _corner(mass: npt.NDArray[np.int64], side: int) -> int:
    """Where the strokes begin, so that pixel side // 2 holds their centre of mass, without leaving the image."""
    total, moment = int(mass.sum()), int((mass * np.arange(len(mass))).sum())
    centred = (2 * (side // 2 * total - moment) + total) // (2 * total)
    return min(max(centred, 0), side - len(mass))


@dataclass
class _Part:
    """Ink that hangs together, corners included."""

    top: int
    left: int
    bottom: int
    right: int
    mass: int
    runs: list[tuple[int, int, int]]
    """(row, first column, column after the last)."""

    def holds(self, other: "_Part") -> bool:
        return self.top < other.top and self.left < other.left and self.bottom > other.bottom and self.right > other.right

    def touches_edge(self, height: int, width: int) -> bool:
        return self.top == 0 or self.left == 0 or self.bottom == height or self.right == width

    def is_rim(self) -> bool:
        """Whether its ink lies along the four sides of its bounding box."""
        down, across = max(1, (self.bottom - self.top) // RIM), max(1, (self.right - self.left) // RIM)
        area = sum(end - first for _, first, end in self.runs)
        inside = sum(
            max(0, min(end, self.right - across) - max(first, self.left + across))
            for row, first, end in self.runs
            if self.top + down <= row < self.bottom - down
        )
        return inside * RIM_LEAK <= area


def _strokes(ink: Plane) -> Plane | None:
    """The strokes' bounding box, cut out, without what is no stroke; None if there is no ink."""
    parts = list(_parts(ink))
    if not parts:
        return None
    kept = _without_clutter(parts, *ink.shape)
    if len(kept) < len(parts):
        ink, strokes = ink.copy(), {id(part) for part in kept}
        for row, first, end in (run for part in parts if id(part) not in strokes for run in part.runs):
            ink[row, max(0, first - 1) : end + 1] = 0
    top, left = min(part.top for part in kept), min(part.left for part in kept)
    bottom, right = max(part.bottom for part in kept), max(part.right for part in kept)
    # Strokes fade into their ground: one more row or column where there is any ink at all.
    top -= bool(top and ink[top - 1, left:right].any())
    bottom += bool(bottom < ink.shape[0] and ink[bottom, left:right].any())
    left, right = (
        left - bool(left and ink[top:bottom, left - 1].any()),
        right + bool(right < ink.shape[1] and ink[top:bottom, right].any()),
    )
    return np.ascontiguousarray(ink[top:bottom, left:right])


def _without_clutter(parts: list[_Part], height: int, width: int) -> list[_Part]:
    """The parts that are strokes: not the frame around them, not what comes in from the image's edge, not dust. Never none."""
    kept = parts
    for part in sorted(parts, key=lambda part: -part.mass)[:FRAMES]:
        inside = [other for other in kept if part.holds(other)]
        if max((other.mass for other in inside), default=0) * COMPANION >= part.mass and part.is_rim():
            kept = inside
    free = [part for part in kept if not part.touches_edge(height, width)]
    if max((part.mass for part in free), default=0) * COMPANION >= max(part.mass for part in kept):
        kept = free
    largest = max(part.mass for part in kept)
    strokes = [part for part in kept if part.mass * SPOT >= largest]
    top, left = min(part.top for part in strokes), min(part.left for part in strokes)
    bottom, right = max(part.bottom for part in strokes), max(part.right for part in strokes)
    reach = max(bottom - top, right - left) // SPOT_REACH
    near = _Part(top - reach - 1, left - reach - 1, bottom + reach + 1, right + reach + 1, 0, [])
    return [part for part in kept if part.mass * SPOT >= largest or (part.mass * DUST >= largest and near.holds(part))]


def _parts(ink: Plane) -> Iterator[_Part]:
    """The connected parts of what is at least STROKE: runs of pixels in each row, joined with those that touch them in the row above."""
    inside = np.zeros((ink.shape[0], ink.shape[1] + 2), np.int8)
    inside[:, 1:-1] = ink >= STROKE
    steps = np.diff(inside, axis=1)
    rows, firsts = (axis.tolist() for axis in np.nonzero(steps == 1))
    ends = np.nonzero(steps == -1)[1].tolist()
    mass_before = np.concatenate([[0], ink.ravel().astype(np.int64).cumsum()])
    starts = np.array(rows, np.int64) * ink.shape[1]
    masses = (mass_before[starts + np.array(ends, np.int64)] - mass_before[starts + np.array(firsts, np.int64)]).tolist()
    joined = list(range(len(rows)))

    def root(run: int) -> int:
        while joined[run] != run:
            joined[run] = joined[joined[run]]
            run = joined[run]
        return run

    above = 0
    for run, row in enumerate(rows):
        while rows[above] < row - 1 or (rows[above] == row - 1 and ends[above] < firsts[run]):
            above += 1
        touching = above
        while rows[touching] == row - 1 and firsts[touching] <= ends[run]:
            one, other = root(touching), root(run)
            joined[max(one, other)] = min(one, other)
            touching += 1
    parts: dict[int, _Part] = {}
    for run, (row, first, end, mass) in enumerate(zip(rows, firsts, ends, masses, strict=True)):
        part = parts.get(root(run))
        if part is None:
            parts[root(run)] = _Part(row, first, row + 1, end, mass, [(row, first, end)])
            continue
        # Written out: a 28 x 28 image has some sixty runs, and training looks at seventy thousand images.
        part.left = min(part.left, first)
        part.right = max(part.right, end)
        part.bottom = row + 1
        part.mass += mass
        part.runs.append((row, first, end))
    return iter(parts.values())
