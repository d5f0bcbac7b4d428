"""The golden images of version 2: strokes on paper, on slate, on transparent canvases, in forms; and JPEGs that can be decoded smaller.

Drawn with whole numbers and numpy alone; make_corpus.py writes them.
"""

import io
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image

Pixels = npt.NDArray[np.uint8]

SEVEN: Final = ((0.2, 0.15, 0.85, 0.15), (0.85, 0.15, 0.4, 0.9), (0.4, 0.5, 0.8, 0.5))
"""Strokes from (x, y) to (x, y), in shares of the box."""
FIVE: Final = ((0.3, 0.1, 0.8, 0.1), (0.3, 0.25, 0.28, 0.5), (0.28, 0.5, 0.7, 0.5), (0.7, 0.5, 0.72, 0.85), (0.72, 0.85, 0.25, 0.9))
"""Its upper bar stands apart."""


def coverage(
    strokes: tuple[tuple[float, float, float, float], ...], shape: tuple[int, int], box: tuple[int, int, int, int], pen: float
) -> Any:
    """Ink 0..1 on a page of `shape`: the strokes in `box` (top, left, height, width), `pen` pixels wide, edges antialiased."""
    y, x = np.mgrid[: shape[0], : shape[1]].astype(float)
    distance = np.full(shape, 1e9)
    for x0, y0, x1, y1 in strokes:
        ax, ay = box[1] + x0 * box[3], box[0] + y0 * box[2]
        bx, by = box[1] + x1 * box[3], box[0] + y1 * box[2]
        along = np.clip(((x - ax) * (bx - ax) + (y - ay) * (by - ay)) / max((bx - ax) ** 2 + (by - ay) ** 2, 1e-9), 0, 1)
        distance = np.minimum(distance, np.hypot(x - ax - along * (bx - ax), y - ay - along * (by - ay)))
    return np.clip(pen / 2 - distance + 0.5, 0, 1)


def page(ink: Any, paper: float, black: float, fall: tuple[float, float] = (0, 0), grain: int = 0) -> Pixels:
    """Ink on paper whose light falls off by `fall` (down, across), with a grain of ± so many levels that repeats itself."""
    y, x = np.mgrid[: ink.shape[0], : ink.shape[1]]
    lit = paper + fall[0] * (2 * y / max(1, ink.shape[0] - 1) - 1) + fall[1] * (2 * x / max(1, ink.shape[1] - 1) - 1)
    noise = (x * 7919 + y * 104729 + x * y * 31) % (2 * grain + 1) - grain
    return np.asarray(np.clip(np.rint(lit * (1 - ink) + lit * black / paper * ink + noise), 0, 255), dtype=np.uint8)


def frame(shape: tuple[int, int], inset: int, line: int, slope: int = 0) -> Any:
    """The four lines of a form's box, 0..1; `slope` pixels lower on the right."""
    ink = np.zeros(shape)
    ink[inset : shape[0] - inset, inset : shape[1] - inset] = 1
    ink[inset + line : shape[0] - inset - line, inset + line : shape[1] - inset - line] = 0
    return np.array([np.roll(column, round(slope * at / shape[1])) for at, column in enumerate(ink.T)]).T


def planes() -> dict[str, tuple[Pixels, str]]:
    """Grey images, and what each is."""
    small = coverage(SEVEN, (28, 28), (4, 4, 20, 20), 2.5)
    paper = coverage(SEVEN, (90, 70), (20, 18, 45, 32), 4)
    sheet = coverage(FIVE, (72, 110), (38, 70, 24, 18), 2)
    dust = coverage(((0.5, 0.5, 0.5, 0.5),), (72, 110), (6, 8, 4, 4), 2)
    boxed = np.maximum(coverage(FIVE, (84, 80), (24, 22, 36, 34), 3), frame((84, 80), 8, 2, 2))
    tight = coverage(SEVEN, (61, 40), (-7, -6, 72, 52), 3)
    tight_dotted = np.maximum(tight, coverage(((0.5, 0.5, 0.5, 0.5),), (61, 40), (44, 4, 6, 6), 4))
    box_dotted = np.maximum(frame((50, 60), 6, 2), coverage(((0.5, 0.5, 0.5, 0.5),), (50, 60), (20, 26, 8, 8), 3))
    arms = ((0.0, 0.0, 1.0, 1.0), (1.0, 0.0, 0.0, 1.0))
    cross = np.maximum(coverage(arms, (60, 64), (8, 10, 44, 44), 4), coverage(((0.5, 0.5, 0.5, 0.5),), (60, 64), (26, 12, 8, 8), 11))
    edge = np.maximum(coverage(FIVE, (80, 96), (20, 20, 44, 40), 5), coverage(((1.0, 0.0, 1.0, 1.0),), (80, 96), (0, 0, 80, 94), 9))
    thick = coverage(FIVE, (44, 50), (6, 8, 32, 34), 8)
    large = coverage(SEVEN, (420, 640), (60, 380, 150, 110), 9)
    y, x = np.mgrid[:90, :70]
    lamps = ((14, 12), (14, 58), (76, 12), (76, 58))
    lit = np.sum([42 / (1 + np.exp((np.hypot(y - down, x - right) - 12) / 2)) for down, right in lamps], axis=0)
    lamp = page(coverage(SEVEN, (90, 70), (26, 22, 38, 26), 3), 130, 25) + np.rint(lit).astype(np.uint8)
    y, x = np.mgrid[:64, :64]
    ring = np.clip(4 - np.abs(np.hypot((x - 31) / 0.7, y - 33) - 22), 0, 1)
    speck = np.clip(2.5 - np.hypot(x - 31, y - 33), 0, 1)
    return {
        "chalk-28.png": (np.rint(255 * small).astype(np.uint8), "white on black, 28 x 28, as MNIST has it"),
        "chalk-dim.png": (np.rint(30 + 140 * small).astype(np.uint8), "light grey on dark grey, 28 x 28"),
        "paper.png": (page(paper, 215, 60, (22, -18), 2), "ink on unevenly lit paper"),
        "paper-dark.png": (page(paper, 105, 20, (-14, 20), 2), "ink on paper in the dark"),
        "pencil.png": (page(paper, 226, 150, (10, 12), 3), "pencil on paper"),
        "faint.png": (page(paper, 226, 196, (4, 4), 1), "what was rubbed out: too faint to be ink"),
        "sheet.png": (
            page(np.maximum(sheet, dust), 200, 40, (-25, 10), 1),
            "small on a sheet, off its centre, with dust; a bar stands apart",
        ),
        "form.png": (page(boxed, 205, 70, (8, 20), 1), "inside a printed box that is not quite straight"),
        "tight.png": (page(tight, 190, 50, (15, 5), 1), "cropped so tightly that strokes leave the image"),
        "tight-dotted.png": (page(tight_dotted, 190, 50, (15, 5), 1), "the same with a dot that does not touch the image's edge"),
        "box-dotted.png": (page(box_dotted, 200, 50, (5, 5)), "an empty form with a dot in it: the box is all that can be read"),
        "cross.png": (page(cross, 200, 50, (5, -5)), "a cross with a blot between its arms: it surrounds the blot and is no frame"),
        "lamp.png": (lamp, "ink on paper under four lamps, which light more of it than there is ink"),
        "filled.png": (
            np.rint(255 * coverage(FIVE, (20, 13), (1, 1, 18, 11), 5)).astype(np.uint8),
            "white on black, cropped to thick strokes",
        ),
        "shade.png": (
            np.where(np.arange(90)[:, None] < 48, page(paper, 235, 60), page(paper, 135, 60)),
            "half of the paper in a hard shadow",
        ),
        "table.png": (page(edge, 210, 45, (0, 12), 1), "the edge of the paper is in the image"),
        "thick.png": (page(thick, 190, 30, (6, -6), 1), "a thick pen"),
        "zero.png": (page(ring, 220, 40, (5, 5)), "a ring: hollow, but nothing in it"),
        "zero-dotted.png": (
            page(np.maximum(ring, speck), 220, 40, (5, 5)),
            "a ring with a dot: the dot is too small for what a frame holds",
        ),
        "slate.png": (page(paper, 60, 220, (8, 8), 2), "chalk on slate, unevenly lit"),
        "empty.png": (page(np.zeros((66, 90)), 205, 40, (30, -12), 3), "an empty sheet"),
        "shadow.png": (
            page(np.zeros((70, 70)), 200, 40) - np.rint(70 / (1 + ((np.mgrid[:70, :70] - 30) ** 2).sum(axis=0) / 120)).astype(np.uint8),
            "an empty sheet with a soft shadow on it",
        ),
        "large.png": (page(large, 220, 50, (25, -20)), "larger than strokes are looked for"),
        "flat.png": (np.full((9, 5), 130, np.uint8), "one grey"),
        "dot.png": (np.array([[7]], np.uint8), "one pixel"),
        "line.png": (np.where(np.arange(300) % 90 < 4, 30, 210).astype(np.uint8)[None], "300 wide, 1 high"),
        "checks.png": (((np.mgrid[:33, :37].sum(axis=0) % 2) * 255).astype(np.uint8), "black and white pixels in turn"),
    }


def canvases() -> dict[str, tuple[Pixels, str]]:
    """RGBA images, and what each is."""
    ink = np.rint(255 * coverage(SEVEN, (60, 70), (8, 10, 44, 40), 4)).astype(np.uint8)
    blank = np.zeros((60, 70), np.uint8)

    def drawn(red: int, green: int, blue: int, under: int = 0) -> Pixels:
        colours = [np.where(ink > 0, level, under).astype(np.uint8) for level in (red, green, blue)]
        return np.dstack([*colours, ink])

    grey_127 = drawn(127, 127, 127)
    return {
        "canvas-black.png": (drawn(0, 0, 0), "black strokes on a transparent canvas"),
        "canvas-yellow.png": (drawn(250, 230, 40), "yellow strokes on a transparent canvas"),
        "canvas-blue.png": (drawn(20, 40, 200, under=255), "blue strokes; white hidden under what is transparent"),
        "canvas-127.png": (grey_127, "strokes of the darker middle grey"),
        "canvas-128.png": (drawn(128, 128, 128), "strokes of the lighter middle grey"),
        "canvas-empty.png": (np.dstack([blank, blank, blank, blank]), "a canvas that nobody drew on"),
        "canvas-opaque.png": (np.dstack([*[255 - ink] * 3, blank + 255]), "an alpha channel, but nothing is transparent"),
    }


def jpegs(scene: Pixels, exif: bytes) -> dict[str, tuple[bytes, int, str]]:
    """JPEG files, the orientation of each, and what it is; `scene` is an RGB image, `exif` a block with orientation 6."""

    def saved(image: Pixels, **settings: Any) -> bytes:
        file = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(image)).save(file, "JPEG", quality=90, **settings)
        return file.getvalue()

    large = np.kron(scene, np.ones((3, 3, 1), np.uint8))
    long = np.kron(scene[:20], np.ones((2, 5, 1), np.uint8))
    edge = np.kron(scene[:61, :80], np.ones((3, 3, 1), np.uint8))[:181]
    ink = page(coverage(SEVEN, (200, 260), (60, 90, 100, 80), 8), 215, 60, (20, -15), 2)
    return {
        "photo.jpg": (saved(large), 1, "a photo of 321 x 243: an eighth is enough for some sizes, a half for others"),
        "photo-6.jpg": (saved(large, exif=b"Exif\x00\x00" + exif), 6, "the same, EXIF orientation 6"),
        "photo-181.jpg": (saved(edge), 1, "240 x 181: a quarter of it, rounded up, is just enough"),
        "photo-long.jpg": (saved(long, subsampling=2), 1, "long and low: its short side decides"),
        "photo-progressive.jpg": (saved(large, progressive=True, subsampling=0), 1, "a progressive JPEG"),
        "paper.jpg": (saved(ink), 1, "ink on paper, as a camera has it"),
    }
