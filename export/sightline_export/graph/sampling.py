"""Which images of a dataset are looked at: as many as memory holds, spread evenly, since data often lies sorted by class."""

import math
from typing import Final

import numpy as np
import numpy.typing as npt

from sightline.card import ModelCard
from sightline.errors import UsageError

MOST_IMAGES: Final = 10_000
MOST_BYTES: Final = 128 * 1024 * 1024
"""Of pixels that the gate compares: all 10,000 images of MNIST (8 MB), some 890 of 224 × 224 × 3."""


def spread(available: int, wanted: int) -> npt.NDArray[np.int64]:
    """Return the indices of `wanted` of `available` images at equal distances, or of all if there are fewer. Raises UsageError below 1."""
    if wanted < 1:
        raise UsageError(f"the gate needs at least one image to compare, not {wanted}")
    return np.arange(available) if wanted >= available else (np.arange(wanted) * available) // wanted


def fitting(card: ModelCard) -> int:
    """Return how many images the gate compares if nobody says: at most MOST_IMAGES, and MOST_BYTES of pixels."""
    return max(1, min(MOST_IMAGES, MOST_BYTES // math.prod(card.preprocess.shape)))
