"""A split of a dataset as images: every network sees what `ImageSet.pixels` gives, through `sightline.reformat`."""

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from sightline.preprocess import Preprocess
from sightline.reformatting import reformat
from sightline_training.datasets.duplicates import ImageHashes
from sightline_training.datasets.look import MOST_PIXELS, Looks
from sightline_training.progress import tracked

Split = Literal["train", "valid", "test"]

Pixels = npt.NDArray[np.uint8]
"""Reformatted images [N, H, W, C]."""
Labels = npt.NDArray[np.int64]
"""Class indices [N]."""

UNKNOWN: Final = -1
"""The class of an image that is asked about, but not counted."""

IN_MEMORY: Final = 1024**3
"""Bytes: more pixels than that lie in a file if there is a place for one."""


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images with their classes, opened one at a time."""

    name: str
    """The dataset's name, such as "mnist"."""
    split: Split
    labels: npt.NDArray[np.int64]
    """Class index of each image, shape (N,), in the order of the model card's labels; UNKNOWN if nobody can say."""
    fingerprint: str
    """Hexadecimal sha256 of the images and labels in their order: two splits with one fingerprint hold the same data."""
    opener: Callable[[int], Image.Image] = field(repr=False)
    places: tuple[str, ...] = ()
    """Where each image lies, relative to the data folder; empty if that says nothing."""
    looks: Looks | None = field(default=None, repr=False)
    """How each image looks, shape (N,), if it was looked at when it was found."""
    hashes: ImageHashes | None = field(default=None, repr=False)
    """What copies of each image are found by, shape (N,), if it was hashed then."""

    def __len__(self) -> int:
        """Number of images."""
        return len(self.labels)

    def open(self, index: int) -> Image.Image:
        """Image `index` as its dataset gives it, before any preprocessing."""
        if not 0 <= index < len(self):
            raise IndexError(f"image {index} of {len(self)} in {self.name}/{self.split}")
        return self.opener(index)

    def pixels(
        self, spec: Preprocess, indices: Sequence[int] | npt.NDArray[np.int64] | None = None, *, spill: Path | None = None
    ) -> npt.NDArray[np.uint8]:
        """Reformat the images `indices` (all of them if None): uint8 of shape (N, height, width, channels).

        More than IN_MEMORY bytes are written to the file `spill`, if one is given, and mapped into memory.
        """
        chosen = range(len(self)) if indices is None else [int(index) for index in indices]
        shape = (len(chosen), *spec.shape)
        pixels = (
            np.lib.format.open_memmap(spill, "w+", np.uint8, shape)  # type: ignore[no-untyped-call]
            if spill is not None and math.prod(shape) > IN_MEMORY
            else np.empty(shape, np.uint8)
        )
        for at, index in enumerate(tracked(chosen, f"reformatting {self.name}/{self.split}")):
            pixels[at] = reformat(self.open(index), spec, MOST_PIXELS)
        return pixels


def image_set_of(name: str, split: Split, planes: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64]) -> ImageSet:
    """A set of images that lie in memory: `planes` of shape (N, H, W) or (N, H, W, 3), 8 bits, and one class index each.

    The fingerprint is the sha256 of both shapes (as text), the planes' bytes and the labels as little-endian int64.
    """
    planes, labels = np.ascontiguousarray(planes), np.ascontiguousarray(labels, np.dtype("<i8"))
    digest = hashlib.sha256(f"{planes.shape} {labels.shape}".encode())
    digest.update(planes.tobytes())
    digest.update(labels.tobytes())
    return ImageSet(name, split, labels, digest.hexdigest(), lambda index: Image.fromarray(planes[index]))
