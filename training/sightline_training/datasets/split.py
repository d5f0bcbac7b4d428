"""Splits validation images off where nobody else did: every class in its proportion, and never one photo on both sides."""

from collections.abc import Sequence
from typing import Final

import numpy as np

from sightline.errors import DataError
from sightline_training.datasets.dataset import SPLIT_SEED
from sightline_training.datasets.duplicates import Ints, mixed

VALID_SHARE: Final = 0.2
"""Of each class, as nearly as its photos allow."""


def split_apart(labels: Ints, groups: Ints, classes: Sequence[str]) -> tuple[Ints, Ints]:
    """Indices (train, valid), each ascending, of images with class indices and group numbers, shape (N,) both.

    A group stays together. One with images of several classes is learned from: nobody knows what the right answer to it is.
    The same images in the same order are split the same way for ever. Raises DataError, naming the class, if one cannot stand on
    both sides.
    """
    # The old generator's stream is frozen for ever; the new ones' may change with numpy's version.
    shuffle = np.random.RandomState(SPLIT_SEED)
    pure = ~mixed(groups, labels)
    held: list[int] = []
    for label, name in enumerate(classes):
        of_class = np.flatnonzero(labels == label)
        _, first, sizes = np.unique(groups[of_class], return_index=True, return_counts=True)
        photos = [(int(of_class[at]), int(size)) for at, size in zip(first, sizes, strict=True) if pure[of_class[at]]]
        if not photos or len(sizes) < 2:
            raise DataError(_too_few(name, len(of_class), len(sizes), len(photos)))
        held += _drawn(sorted(photos), len(of_class) * VALID_SHARE, shuffle)
    apart = np.isin(groups, groups[held])
    return np.flatnonzero(~apart), np.flatnonzero(apart)


def _drawn(photos: list[tuple[int, int]], wanted: float, shuffle: np.random.RandomState) -> list[int]:
    """First images of photos (first image, number of images) that hold about as many images as wanted, at least one photo."""
    drawn, count = [], 0
    for at in shuffle.permutation(len(photos)):
        first, size = photos[at]
        if count + size <= max(1, round(wanted)):
            drawn.append(first)
            count += size
    return drawn or [min(photos, key=lambda photo: (photo[1], photo[0]))[0]]


def _too_few(name: str, images: int, photos: int, pure: int) -> str:
    reason = f"its {images:,} {'image shows' if images == 1 else 'images show'} only {photos:,} different photo{'s' * (photos != 1)}"
    if not pure:
        reason += ", each of them also in another class"
    return (
        f"the class {name}: {reason}, but two are needed, one to learn from and one to be judged by. "
        "Add images, or make the folders train/ and valid/ yourself."
    )
