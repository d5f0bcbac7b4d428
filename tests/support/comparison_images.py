"""Images on which two ways of preprocessing are compared, and Pillow made to scale in the order that a card fixes."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

SIZES = ((640, 283), (500, 375), (256, 256), (100, 80), (259, 224), (227, 225), (301, 477), (375, 500), (33, 200))
"""Width and height: wide, square, small, nearly square, tall."""


def smooth(number: int, size: tuple[int, int]) -> Image.Image:
    """Soft patches of random colours, as in a photo."""
    patches = np.random.RandomState(number).randint(0, 256, (9, 13, 3)).astype(np.uint8)
    return Image.fromarray(patches).resize(size, Image.Resampling.BICUBIC)


def noise(number: int, size: tuple[int, int]) -> Image.Image:
    """Every pixel at random: the worst case for rounding."""
    return Image.fromarray(np.random.RandomState(number).randint(0, 256, (size[1], size[0], 3)).astype(np.uint8))


def all_images() -> list[Image.Image]:
    return [draw(number, size) for number, size in enumerate(SIZES) for draw in (smooth, noise)]


@pytest.fixture
def width_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow 13 scales the height of a tall image first, as no Pillow before it did; here it scales the width first again."""
    once = Image.Image.resize

    def resize(
        self: Image.Image, size: tuple[int, int], resample: Any = None, box: object = None, reducing_gap: object = None
    ) -> Image.Image:
        assert box is None
        return once(once(self, (size[0], self.height), resample), (size[0], size[1]), resample)

    monkeypatch.setattr(Image.Image, "resize", resize)


def furthest(one: npt.NDArray[np.uint8], other: npt.NDArray[np.uint8]) -> int:
    """Largest difference of a byte."""
    assert one.shape == other.shape
    return int(np.abs(one.astype(int) - other.astype(int)).max())
