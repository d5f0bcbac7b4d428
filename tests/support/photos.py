"""Images that differ as photos do: smooth patches of random colours, another one for each number."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def photo(number: int, size: tuple[int, int] = (96, 80)) -> Image.Image:
    patches = np.random.RandomState(number).randint(0, 256, (8, 8, 3), np.uint8)
    return Image.fromarray(patches).resize(size, Image.Resampling.BICUBIC)


def save(image: Image.Image, path: Path, **settings: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **settings)
    return path


def make_class(folder: Path, numbers: range) -> list[Path]:
    """A class folder with a PNG for each number."""
    return [save(photo(number), folder / f"{number:04d}.png") for number in numbers]
