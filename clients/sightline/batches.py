"""Many images through a model that takes a batch at a time, wherever it runs."""

import math
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Pixels: TypeAlias = npt.NDArray[np.uint8]
"""Images as a network takes them: [N, height, width, channels]."""
Probabilities: TypeAlias = npt.NDArray[np.float32]
"""A model's answers: [N, classes]."""
Predict: TypeAlias = Callable[[Pixels], Probabilities]


def in_batches(predict: Predict, pixels: Pixels, size: int, progress: Callable[[int], None] = lambda _done: None) -> Probabilities:
    """Return the answers to all `pixels`, asked for `size` at a time; `progress` is called with the number of images that are done."""
    batches = []
    for start in range(0, len(pixels), size):
        batches.append(predict(pixels[start : start + size]))
        progress(min(start + size, len(pixels)))
    return np.concatenate(batches)


def batch_size_for(shape: tuple[int, ...]) -> int:
    """Return how many images of shape (H, W, C) make a batch: 1000 of MNIST's, 26 of 224 x 224, where VGG16 takes a gigabyte."""
    return max(1, min(1000, 4_000_000 // math.prod(shape)))
