"""Draws test digits of MNIST as people send them, asks a served model about them, and prints what it read right.

    python scripts/drawn_digits.py mnist --data DATA  [--url grpc://localhost:8001] [--images 300] [--sheet drawn.png]

Each scene takes other test digits, draws their strokes anew at the size of a photo (as they are, or along their middle with a pen of
another width) and puts them on paper, into a form, on a canvas. None is trained on. `DATA` is the folder that holds mnist/. The figures
in docs/benchmarks.md and in the recipe `mnist` came about so.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image
from scenes import asked, options, write_sheet
from scipy import ndimage
from skimage.morphology import skeletonize

from sightline import Classifier
from sightline.console import results, table
from sightline_training.datasets.image_set import ImageSet
from sightline_training.datasets.mnist import open_mnist

Coverage = npt.NDArray[np.float64]
"""Ink on each pixel of a page (H, W), 0..1."""
Random = np.random.Generator
Draw = Callable[[Image.Image, Random], Image.Image]

ENLARGED: Final = 8
"""A digit's strokes are outlined in an image so many times as large as MNIST's."""


@dataclass(frozen=True)
class Scene:
    """One way in which people send a digit."""

    draw: Draw
    """Draws MNIST's image of a digit (28 x 28, light on dark) as such an image."""
    target: float | None
    """The share that must be read right; None where none is promised."""
    about: str


def strokes(digit: Image.Image, side: int, pen: float | None = None) -> Coverage:
    """The digit's ink without a margin, its longer side `side` pixels; `pen` is the radius of another pen, as a share of its height."""
    enlarged = np.asarray(digit.resize((28 * ENLARGED, 28 * ENLARGED), Image.Resampling.BICUBIC)).astype(np.float64)
    if pen is not None:
        # The middle of a rough edge has spurs that no hand drew.
        enlarged = ndimage.gaussian_filter(enlarged, ENLARGED * 0.25)
    inside = enlarged > 127
    rows = np.flatnonzero(inside.any(axis=1))
    height = rows[-1] - rows[0] + 1
    if pen is None:
        distance = ndimage.distance_transform_edt(inside) - ndimage.distance_transform_edt(~inside)
    else:
        distance = pen * height - ndimage.distance_transform_edt(~_middle(inside))
    rows, columns = (np.flatnonzero((distance > 0).any(axis=axis)) for axis in (1, 0))
    cut = distance[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].astype(np.float32)
    scale = side / max(cut.shape)
    size = max(1, round(cut.shape[1] * scale)), max(1, round(cut.shape[0] * scale))
    # A signed distance from the stroke's edge, in pixels of the page: half a pixel around 0 is the antialiased edge.
    drawn = np.asarray(Image.fromarray(cut).resize(size, Image.Resampling.BICUBIC)) * scale
    return np.asarray(np.clip(drawn.astype(np.float64) + 0.5, 0, 1))


def _middle(inside: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    return np.asarray(skeletonize(inside), dtype=np.bool_)  # type: ignore[no-untyped-call]


def on_page(ink: Coverage, shape: tuple[int, int], corner: tuple[int, int]) -> Coverage:
    """`ink` on an empty page of `shape`, its first pixel at `corner` (row, column); what lies outside is cut off."""
    page = np.zeros(shape)
    top, left = max(0, corner[0]), max(0, corner[1])
    bottom, right = min(shape[0], corner[0] + ink.shape[0]), min(shape[1], corner[1] + ink.shape[1])
    page[top:bottom, left:right] = ink[top - corner[0] : bottom - corner[0], left - corner[1] : right - corner[1]]
    return page


def near_centre(ink: Coverage, side: int, chance: Random, off: float = 0.05) -> Coverage:
    """`ink` on a square page, up to `off` of its side away from the middle."""
    shift = chance.uniform(-off * side, off * side, 2)
    corner = round((side - ink.shape[0]) / 2 + shift[0]), round((side - ink.shape[1]) / 2 + shift[1])
    return on_page(ink, (side, side), corner)


def light(shape: tuple[int, int], chance: Random, most: float) -> npt.NDArray[np.float64]:
    """Levels to add to each pixel: light that falls off along a line, or around a point, by at most ± `most`."""
    y, x = np.mgrid[-1 : 1 : shape[0] * 1j, -1 : 1 : shape[1] * 1j]
    if chance.random() < 0.5:
        angle = chance.uniform(0, 2 * np.pi)
        slope = np.cos(angle) * x + np.sin(angle) * y
    else:
        centre = chance.uniform(-1, 1, 2)
        slope = -np.hypot(y - centre[0], x - centre[1])
    slope = (slope - slope.min()) / max(float(np.ptp(slope)), 1e-9) * 2 - 1
    return np.asarray(slope * chance.uniform(0, most))


def photographed(
    page: Coverage, chance: Random, paper: tuple[float, float] = (175, 255), ink: tuple[float, float] = (20, 80)
) -> Image.Image:
    """A JPEG of ink on paper: grey levels from the two ranges, light falling off by ±30, noise of 3 levels, quality 82."""
    white, black = chance.uniform(*paper), chance.uniform(*ink)
    lit = white + light((page.shape[0], page.shape[1]), chance, 30)
    levels = lit * (1 - page) + lit * (black / white) * page + chance.normal(0, 3, page.shape)
    file = io.BytesIO()
    Image.fromarray(np.clip(np.rint(levels), 0, 255).astype(np.uint8)).save(file, "JPEG", quality=82)
    return Image.open(io.BytesIO(file.getvalue()))


def _paper(digit: Image.Image, chance: Random, pen: tuple[float, float] | None = None) -> Coverage:
    side = int(chance.integers(200, 400))
    ink = strokes(digit, int(side * chance.uniform(0.45, 0.8)), None if pen is None else chance.uniform(*pen))
    return near_centre(ink, side, chance)


def _sheet(digit: Image.Image, chance: Random) -> Image.Image:
    shape = (480, 640)
    ink = strokes(digit, shape[0] // 3)
    corner = tuple(int(chance.integers(8, page - side - 8)) for page, side in zip(shape, ink.shape, strict=True))
    return photographed(on_page(ink, shape, (corner[0], corner[1])), chance)


def _tight(digit: Image.Image, chance: Random) -> Image.Image:
    side = int(chance.integers(120, 300))
    ink = strokes(digit, side, chance.uniform(0.012, 0.03))
    return photographed(np.pad(ink, max(1, int(side * chance.uniform(0.01, 0.05)))), chance)


def _form(digit: Image.Image, chance: Random) -> Image.Image:
    side = int(chance.integers(200, 400))
    box = int(side * chance.uniform(0.75, 0.92))
    pen = None if chance.random() < 0.5 else chance.uniform(0.02, 0.05)
    page = near_centre(strokes(digit, int(box * chance.uniform(0.5, 0.8)), pen), side, chance, 0.025)
    line, corner = max(1, int(side * chance.uniform(0.005, 0.02))), (side - box) // 2
    frame = np.zeros((side, side), np.uint8)
    frame[corner : corner + box, corner : corner + box] = 255
    frame[corner + line : corner + box - line, corner + line : corner + box - line] = 0
    turned = np.asarray(Image.fromarray(frame).rotate(chance.uniform(-3, 3), Image.Resampling.BILINEAR))
    return photographed(np.maximum(page, turned / 255 * chance.uniform(0.6, 1)), chance)


def _canvas(digit: Image.Image, chance: Random, colour: tuple[int, ...]) -> Image.Image:
    side = int(chance.integers(200, 400))
    pen = None if chance.random() < 0.5 else chance.uniform(0.02, 0.07)
    ink = strokes(digit, int(side * chance.uniform(0.4, 0.85)), pen)
    corner = tuple(int(chance.integers(0, max(1, side - length))) for length in ink.shape)
    alpha = np.rint(on_page(ink, (side, side), (corner[0], corner[1])) * 255).astype(np.uint8)
    drawn = np.zeros((side, side, 4), np.uint8)
    # Under what nobody drew on, a canvas holds transparent black.
    drawn[alpha > 0, :3] = colour
    drawn[..., 3] = alpha
    return Image.fromarray(drawn)


def _shadow(digit: Image.Image, chance: Random) -> Image.Image:
    page = _paper(digit, chance)
    photo = np.asarray(photographed(page, chance)).astype(np.float64)
    y, x = np.mgrid[-1 : 1 : page.shape[0] * 1j, -1 : 1 : page.shape[1] * 1j]
    angle = chance.uniform(0, 2 * np.pi)
    across = np.cos(angle) * x + np.sin(angle) * y + chance.uniform(-0.4, 0.4)
    shade = 1 - chance.uniform(0.2, 0.4) / (1 + np.exp(-across * chance.uniform(8, 30)))
    return Image.fromarray(np.clip(np.rint(photo * shade), 0, 255).astype(np.uint8))


def _chalk(digit: Image.Image, chance: Random) -> Image.Image:
    return photographed(_paper(digit, chance), chance, paper=(40, 90), ink=(170, 240))


SCENES: Final[dict[str, Scene]] = {
    "MNIST": Scene(lambda digit, _: digit, None, "white on black, as MNIST has it"),
    "paper": Scene(lambda digit, chance: photographed(_paper(digit, chance), chance), 0.98, "paper 175 … 255, ink 20 … 80"),
    "sheet": Scene(_sheet, 0.97, "a third of a landscape sheet, off centre"),
    "tight crop": Scene(_tight, 0.93, "cropped to the strokes, thin pen"),
    "form": Scene(_form, 0.90, "inside a printed box, turned by up to 3 degrees"),
    "black canvas": Scene(lambda digit, chance: _canvas(digit, chance, (0, 0, 0)), 0.97, "black strokes on transparent"),
    "coloured canvas": Scene(
        lambda digit, chance: _canvas(digit, chance, tuple(chance.integers(0, 256, 3).tolist())),
        0.97,
        "strokes of any colour on transparent",
    ),
    "thin pen": Scene(lambda digit, chance: photographed(_paper(digit, chance, (0.012, 0.03)), chance), None, "on paper"),
    "thick pen": Scene(lambda digit, chance: photographed(_paper(digit, chance, (0.06, 0.1)), chance), None, "on paper"),
    "pencil": Scene(lambda digit, chance: photographed(_paper(digit, chance), chance, (200, 255), (130, 150)), None, "pale, on paper"),
    "dark photo": Scene(lambda digit, chance: photographed(_paper(digit, chance), chance, (60, 130), (5, 30)), None, "paper 60 … 130"),
    "shadow": Scene(_shadow, None, "half of the paper in a shadow of 20 to 40 %"),
    "chalk": Scene(_chalk, None, "light strokes on a dark board"),
}
"""By the name that the table shows."""


def empty_sheet(chance: Random) -> Image.Image:
    """Photographed paper with nothing on it."""
    return photographed(np.zeros(tuple(chance.integers(200, 400, 2).tolist())), chance)


def drawn(scene: str, test: ImageSet, images: int) -> tuple[list[Image.Image], list[str]]:
    """Return so many images of a scene, drawn from some of MNIST's `test` images (always the same ones), and their digits."""
    number = list(SCENES).index(scene)
    order = [int(index) for index in np.random.RandomState(number).permutation(len(test))[:images]]
    return [SCENES[scene].draw(test.open(index), np.random.default_rng([number, index])) for index in order], [
        str(test.labels[index]) for index in order
    ]


def main() -> None:
    """Print a row for each scene."""
    chosen = options(__doc__)
    test = open_mnist(chosen.data)["test"]
    rows = table("scene", "", "right", "95 % interval", "target", "mean probability if wrong")
    sheet = []
    with Classifier(chosen.model, chosen.url) as classifier:
        for name, scene in SCENES.items():
            images, digits = drawn(name, test, len(test) if name == "MNIST" else chosen.images)
            right, interval, wrong = asked(classifier, images, digits)
            rows.add_row(name, scene.about, right, interval, "" if scene.target is None else f"{100 * scene.target:.0f} %", wrong)
            sheet.append(images[:10])
        empty = classifier.classify([empty_sheet(np.random.default_rng(number)) for number in range(chosen.images)])
    results().print(rows)
    flat = sum(bool(guess.remark) for guess in empty)
    results().print(f"empty sheets with the remark that there is nothing to read: {flat} of {len(empty)}")
    if chosen.sheet:
        write_sheet(chosen.sheet, sheet)


if __name__ == "__main__":
    main()
