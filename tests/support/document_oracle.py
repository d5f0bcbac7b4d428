"""A second reading of `levels: document` and `frame: ink-box` in docs/preprocessing.md: sorted lists, fractions, flooded pixels.

It shares no code with `sightline.document` and `sightline.ink_box`, and resamples with the oracle's own matrices.
"""

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
Resampled = Callable[[Pixels, tuple[int, int], str], Pixels]
"""An image (H, W, 1), a size, a filter's name → that size."""


def strokes_of(plane: Pixels, resampled: Resampled) -> tuple[Pixels, bool]:
    """Ink 0..255 (H, W) of a plane (H, W), and whether it is darker than its ground."""
    height, width = plane.shape
    dark = _dark(plane)
    ground = _ground(plane, dark, resampled)
    deviation = np.zeros(plane.shape, np.int64)
    ink = np.zeros(plane.shape, np.int64)
    for y in range(height):
        for x in range(width):
            paper, sample = int(ground[y, x]), int(plane[y, x])
            room = max(128, paper if dark else 255 - paper)
            deviation[y, x] = min(255, abs(paper - sample) * 255 // room)
            if (sample < paper) == dark and sample != paper:
                ink[y, x] = deviation[y, x]
    full = full_ink(ink)
    floor = 4 * sorted(deviation.ravel().tolist())[deviation.size // 2] if min(plane.shape) >= 16 else 0
    if full < 40 or full < 2 * floor or 5 * _steepest(ink, resampled) < full:
        return np.zeros(plane.shape, np.uint8), dark
    return np.clip((ink - floor) * 255 // (full - floor), 0, 255).astype(np.uint8), dark


def boxed(ink: Pixels, size: tuple[int, int], method: str, resampled: Resampled) -> Pixels:
    """The strokes of `ink` (H, W) in the middle of `size`, scaled into its box."""
    canvas = np.zeros(size, np.uint8)
    parts = _flooded(ink)
    if not parts:
        return canvas
    strokes = _only_strokes(parts, ink)
    ink = ink.copy()
    for part in parts:
        if part not in strokes:
            for y in {y for y, _ in part}:
                for first, last in _spans(x for row, x in part if row == y):
                    ink[y, max(0, first - 1) : last + 2] = 0
    rows, columns = [y for part in strokes for y, _ in part], [x for part in strokes for _, x in part]
    top, bottom, left, right = min(rows), max(rows), min(columns), max(columns)
    top = top - 1 if top > 0 and ink[top - 1, left : right + 1].max() else top
    bottom = bottom + 1 if bottom + 1 < ink.shape[0] and ink[bottom + 1, left : right + 1].max() else bottom
    grown_left = left - 1 if left > 0 and ink[top : bottom + 1, left - 1].max() else left
    right = right + 1 if right + 1 < ink.shape[1] and ink[top : bottom + 1, right + 1].max() else right
    cut = ink[top : bottom + 1, grown_left : right + 1]
    box = [max(1, _half_up(Fraction(20 * side, 28))) for side in size]
    scale = min(Fraction(box[0], cut.shape[0]), Fraction(box[1], cut.shape[1]))
    scaled = resampled(cut[..., None], (max(1, _half_up(cut.shape[0] * scale)), max(1, _half_up(cut.shape[1] * scale))), method)[..., 0]
    peak = int(scaled.max())
    if peak == 0:
        return canvas
    full = np.array([[(int(sample) * 255 + peak // 2) // peak for sample in row] for row in scaled])
    corner = []
    for axis in (0, 1):
        masses = full.sum(axis=1 - axis).tolist()
        centre = Fraction(sum(at * mass for at, mass in enumerate(masses)), sum(masses))
        corner.append(min(max(0, _half_up(size[axis] // 2 - centre)), size[axis] - len(masses)))
    canvas[corner[0] : corner[0] + full.shape[0], corner[1] : corner[1] + full.shape[1]] = full
    return canvas


def _half_up(value: Fraction) -> int:
    return int((value + Fraction(1, 2)) // 1)


def _dark(plane: Pixels) -> bool:
    high, wide = (plane.shape[0] + 1) // 2, (plane.shape[1] + 1) // 2
    reach = {-1: 0, 1: 0}

    def weigh(samples: list[int], median: int) -> None:
        for sample in samples:
            reach[-1 if sample < median else 1] += (sample - median) ** 4

    for rows in (slice(None, high), slice(plane.shape[0] - high, None)):
        for columns in (slice(None, wide), slice(plane.shape[1] - wide, None)):
            quarter = sorted(plane[rows, columns].ravel().tolist())
            weigh(quarter, quarter[len(quarter) // 2])
    rim = max(1, min(plane.shape) // 16)
    y, x = np.mgrid[: plane.shape[0], : plane.shape[1]]
    far = np.minimum(np.minimum(y, plane.shape[0] - 1 - y), np.minimum(x, plane.shape[1] - 1 - x))
    border = sorted(plane[far < rim].tolist())
    weigh(plane.ravel().tolist(), border[len(border) // 2])
    return reach[-1] > reach[1]


def _ground(plane: Pixels, dark: bool, resampled: Resampled) -> Pixels:
    if min(plane.shape) < 16:
        everything = sorted(plane.ravel().tolist(), reverse=dark)
        return np.full(plane.shape, everything[(len(everything) - 1) // 4], np.uint8)

    def starts(length: int) -> tuple[list[int], int]:
        side = (length + 15) // 16
        return [tile * (length - side) // 15 for tile in range(16)], side

    (tops, high), (lefts, wide) = starts(plane.shape[0]), starts(plane.shape[1])
    levels = np.zeros((16, 16), np.uint8)
    for down, top in enumerate(tops):
        for across, left in enumerate(lefts):
            samples = sorted(plane[top : top + high, left : left + wide].ravel().tolist(), reverse=dark)
            levels[down, across] = samples[(len(samples) - 1) // 4]

    def slid(of: Callable[[list[int]], int]) -> Pixels:
        around = [[of(levels[max(0, y - 2) : y + 3, max(0, x - 2) : x + 3].ravel().tolist()) for x in range(16)] for y in range(16)]
        return np.array(around, np.uint8)

    for of in (max, min) if dark else (min, max):
        levels = slid(of)
    return resampled(levels[..., None], (plane.shape[0], plane.shape[1]), "bilinear")[..., 0]


def full_ink(ink: npt.NDArray[np.int64]) -> int:
    samples = sorted(ink.ravel().tolist())
    best, threshold = Fraction(-1), -1
    counts = [samples.count(level) for level in range(256)] if len(samples) < 2000 else np.bincount(ink.ravel(), minlength=256).tolist()
    below = total_below = 0
    number, total = len(samples), sum(samples)
    for level in range(255):
        below, total_below = below + counts[level], total_below + level * counts[level]
        if 0 < below < number:
            apart = Fraction(total_below, below) - Fraction(total - total_below, number - below)
            variance = apart * apart * below * (number - below)
            if variance > best:
                best, threshold = variance, level
    if threshold < 0:
        return 0
    strokes = [sample for sample in samples if sample > threshold]
    # The level that at least a tenth of them reach.
    return int(strokes[len(strokes) - (len(strokes) + 9) // 10])


def _steepest(ink: npt.NDArray[np.int64], resampled: Resampled) -> int:
    cells = ink.astype(np.uint8)
    if max(cells.shape) > 64:
        cells = resampled(cells[..., None], (min(64, cells.shape[0]), min(64, cells.shape[1])), "box")[..., 0]
    wide = cells.astype(int)
    steps = [0]
    for y in range(wide.shape[0]):
        for x in range(wide.shape[1]):
            if y:
                steps.append(abs(wide[y, x] - wide[y - 1, x]))
            if x:
                steps.append(abs(wide[y, x] - wide[y, x - 1]))
    return int(max(steps))


Part = frozenset[tuple[int, int]]


def _flooded(ink: Pixels) -> list[Part]:
    """The 8-connected parts of what is at least 32, in the order of their first pixel."""
    left = {(int(y), int(x)) for y, x in np.argwhere(ink >= 32)}
    parts = []
    for seed in sorted(left):
        if seed not in left:
            continue
        part, edge = {seed}, [seed]
        left.discard(seed)
        while edge:
            y, x = edge.pop()
            for near in ((y + down, x + across) for down in (-1, 0, 1) for across in (-1, 0, 1)):
                if near in left:
                    left.discard(near)
                    part.add(near)
                    edge.append(near)
        parts.append(frozenset(part))
    return parts


def _box_of(part: Part) -> tuple[int, int, int, int]:
    rows, columns = [y for y, _ in part], [x for _, x in part]
    return min(rows), min(columns), max(rows), max(columns)


def _only_strokes(parts: list[Part], ink: Pixels) -> list[Part]:
    mass = {part: sum(int(ink[place]) for place in part) for part in parts}
    box = {part: _box_of(part) for part in parts}
    kept = list(parts)
    for part in sorted(parts, key=lambda part: -mass[part])[:8]:
        top, left, bottom, right = box[part]
        inside = [
            other for other in kept if box[other][0] > top and box[other][1] > left and box[other][2] < bottom and box[other][3] < right
        ]
        down, across = max(1, (bottom - top + 1) // 8), max(1, (right - left + 1) // 8)
        core = [(y, x) for y, x in part if top + down <= y <= bottom - down and left + across <= x <= right - across]
        if inside and 8 * max(mass[other] for other in inside) >= mass[part] and 20 * len(core) <= len(part):
            kept = inside
    last = ink.shape[0] - 1, ink.shape[1] - 1
    free = [part for part in kept if box[part][0] and box[part][1] and box[part][2] < last[0] and box[part][3] < last[1]]
    if free and 8 * max(mass[part] for part in free) >= max(mass[part] for part in kept):
        kept = free
    most = max(mass[part] for part in kept)
    strokes = [part for part in kept if 20 * mass[part] >= most]
    top, left, bottom, right = (of(box[part][side] for part in strokes) for side, of in enumerate((min, min, max, max)))
    reach = max(bottom - top + 1, right - left + 1) // 4
    return [
        part
        for part in kept
        if part in strokes
        or (
            200 * mass[part] >= most
            and box[part][0] >= top - reach
            and box[part][1] >= left - reach
            and box[part][2] <= bottom + reach
            and box[part][3] <= right + reach
        )
    ]


def _spans(columns: Any) -> list[tuple[int, int]]:
    """First and last of each unbroken run of columns."""
    spans: list[tuple[int, int]] = []
    for x in sorted(columns):
        if spans and spans[-1][1] == x - 1:
            spans[-1] = spans[-1][0], x
        else:
            spans.append((x, x))
    return spans
