"""Images of every kind that a caller may give, each with an answer of its own; in a module that a spawned process can import."""

import io
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from sightline import Classifier, ImageInput

SHAPE = (6, 5, 3)
"""Of the tiny models' inputs, so that nothing is resized."""


def pixels_of(seeds: Sequence[int]) -> npt.NDArray[np.uint8]:
    """What the images of these seeds show, uint8 [N, 6, 5, 3]: nobody else has the same."""
    return np.stack([np.random.default_rng(seed).integers(0, 256, SHAPE, dtype=np.uint8) for seed in seeds])


def image_of(seed: int) -> ImageInput:
    """The image of a seed: by turns an array, a Pillow image, an encoded file, and an open one."""
    pixels: npt.NDArray[np.uint8] = pixels_of([seed])[0]
    if seed % 4 == 0:
        return pixels
    image = Image.fromarray(pixels)
    if seed % 4 == 1:
        return image
    file = io.BytesIO()
    image.save(file, "PNG" if seed % 3 else "BMP")
    file.seek(0)
    return file.getvalue() if seed % 4 == 2 else file


class Classifying:
    """Classifies the images of `count` seeds from a first one on, by all the ways that there are: what a thread or a process does."""

    def __init__(self, classifier: Classifier, count: int) -> None:
        self.classifier, self.count = classifier, count

    def __call__(self, first: int) -> tuple[list[int], npt.NDArray[np.float32]]:
        seeds = list(range(first, first + self.count))
        half = self.count // 2
        single = [self.classifier.probabilities(image_of(seed))[0] for seed in seeds[:half]]
        together = self.classifier.probabilities(map(image_of, seeds[half:]))
        return seeds, np.concatenate([np.array(single, np.float32).reshape(-1, 4), together])
