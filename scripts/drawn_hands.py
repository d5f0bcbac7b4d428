"""Puts the photographed hands of asl_photos/ into other light and before other grounds, asks a served model, prints what it read right.

    python scripts/drawn_hands.py asl --data DATA  [--url grpc://localhost:8001] [--images 300] [--sheet drawn.png]

A hand is cut out by colour: skin and the dark sleeve stand out from the grey wall behind them. `DATA` is the folder that holds asl_photos/,
where a photo's letter is its file's name. Thirteen hands are few, and each is drawn many times: the figures say what light and ground do to
a model, not how it does on new hands.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image
from scenes import asked, options, write_sheet
from scipy import ndimage

from sightline import Classifier
from sightline.console import results, table

Photo = npt.NDArray[np.float64]
"""RGB, 0..255 (H, W, 3)."""
Scene = Callable[[Photo, np.random.Generator], Photo]


def hand_in(photo: Photo) -> npt.NDArray[np.float64]:
    """How much of each pixel is hand or sleeve, 0..1 (H, W): coloured, or darker than the wall by far."""
    spread = photo.max(axis=2) - photo.min(axis=2)
    inside = (spread > 28) | (photo.mean(axis=2) < 95)
    # Light on skin leaves holes, which are tinted still; through a ring of fingers the grey wall is seen.
    holes, count = ndimage.label(ndimage.binary_fill_holes(inside) & ~inside)
    tints = ndimage.mean(spread, holes, range(1, count + 1))
    inside = inside | np.isin(holes, 1 + np.flatnonzero(np.asarray(tints) > 12))
    inside = ndimage.binary_opening(ndimage.binary_closing(inside, iterations=2), iterations=1)
    parts, count = ndimage.label(inside)
    sizes = ndimage.sum_labels(inside, parts, range(1, count + 1))
    largest = parts == 1 + int(np.argmax(sizes))
    return np.asarray(ndimage.gaussian_filter(largest.astype(float), 0.8))


def _before(photo: Photo, ground: Photo) -> Photo:
    alpha = hand_in(photo)[..., None]
    return np.asarray(photo * alpha + ground * (1 - alpha))


def _dim(photo: Photo, chance: np.random.Generator) -> Photo:
    return photo * chance.uniform(0.35, 0.7)


def _bright(photo: Photo, chance: np.random.Generator) -> Photo:
    return photo * chance.uniform(1.15, 1.5)


def _from_the_side(photo: Photo, chance: np.random.Generator) -> Photo:
    y, x = np.mgrid[-1 : 1 : photo.shape[0] * 1j, -1 : 1 : photo.shape[1] * 1j]
    angle = chance.uniform(0, 2 * np.pi)
    slope = np.cos(angle) * x + np.sin(angle) * y
    return np.asarray(photo * (1 + chance.uniform(0.2, 0.5) * slope)[..., None])


def _lamp(photo: Photo, chance: np.random.Generator) -> Photo:
    cast = np.array([1.0, chance.uniform(0.75, 0.9), chance.uniform(0.45, 0.7)])
    return np.asarray(photo * (cast if chance.random() < 0.5 else cast[::-1]))


def _skin(photo: Photo, chance: np.random.Generator) -> Photo:
    skin = np.median(photo[hand_in(photo) > 0.9], axis=0)
    ground = np.ones_like(photo) * skin * chance.uniform(0.85, 1.15)
    return _before(photo, ground + ndimage.gaussian_filter(chance.normal(0, 40, photo.shape), (6, 6, 0)))


def _clutter(photo: Photo, chance: np.random.Generator) -> Photo:
    ground = np.ones_like(photo) * chance.uniform(60, 200, 3)
    for _ in range(40):
        top, left = (int(chance.integers(-30, side)) for side in photo.shape[:2])
        high, wide = chance.integers(10, 70, 2).tolist()
        ground[max(0, top) : max(0, top + high), max(0, left) : max(0, left + wide)] = chance.uniform(0, 255, 3)
    return _before(photo, np.asarray(ndimage.gaussian_filter(ground, (1, 1, 0))))


def _dark_wall(photo: Photo, chance: np.random.Generator) -> Photo:
    return _before(photo, np.ones_like(photo) * chance.uniform(20, 80))


SCENES: Final[dict[str, Scene]] = {
    "as photographed": lambda photo, _: photo,
    "dim light (35 to 70 %)": _dim,
    "bright light (115 to 150 %, cut off at white)": _bright,
    "light from one side (±20 to 50 %)": _from_the_side,
    "warm or cold lamp": _lamp,
    "skin-coloured ground": _skin,
    "cluttered ground": _clutter,
    "dark wall": _dark_wall,
}


def drawn(scene: str, data: Path, images: int) -> tuple[list[Image.Image], list[str]]:
    """Return so many images of a scene and their letters, always drawn alike: each photo in turn, or once where nothing is drawn."""
    paths = sorted((data / "asl_photos").glob("*.png"))
    number = len(paths) if scene == "as photographed" else images
    chosen = [paths[at % len(paths)] for at in range(number)]
    chance = np.random.default_rng(list(SCENES).index(scene))
    photos = [np.asarray(Image.open(path).convert("RGB")).astype(np.float64) for path in chosen]
    scenes = [np.clip(np.rint(SCENES[scene](photo, chance)), 0, 255).astype(np.uint8) for photo in photos]
    return [Image.fromarray(image) for image in scenes], [path.stem.upper() for path in chosen]


def main() -> None:
    """Print a row for each scene."""
    chosen = options(__doc__)
    rows = table("scene", "right", "95 % interval", "mean probability if wrong")
    sheet = []
    with Classifier(chosen.model, chosen.url) as classifier:
        for name in SCENES:
            images, letters = drawn(name, chosen.data, chosen.images)
            rows.add_row(name, *asked(classifier, images, letters))
            sheet.append(images[:13])
    results().print(rows)
    if chosen.sheet:
        write_sheet(chosen.sheet, sheet)


if __name__ == "__main__":
    main()
