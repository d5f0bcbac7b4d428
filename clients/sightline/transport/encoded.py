"""Encoded images as tritonclient wants a tensor of BYTES."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


def as_bytes(images: Sequence[bytes]) -> npt.NDArray[np.object_]:
    """Encoded images as an array of objects, [N, 1]."""
    column = np.empty((len(images), 1), dtype=np.object_)
    column[:, 0] = list(images)
    return column
