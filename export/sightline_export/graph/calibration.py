"""Images that INT8 is calibrated with: of the training set, or of a folder that somebody names. All come through `sightline.reformat`."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

from sightline.batches import Pixels
from sightline.card import ModelCard
from sightline.errors import DataError, ImageError, UsageError
from sightline.host.files import reason_of
from sightline.image import is_image_file
from sightline.reformatting import reformat

MOST_FILES: Final = 100_000
"""Of a folder, that are looked at."""

COUNT: Final = 256
"""Images that INT8 is calibrated with, if nobody says."""


@dataclass(frozen=True, kw_only=True)
class CalibrationSettings:
    """Which images INT8 is calibrated with."""

    count: int = COUNT
    """At most."""
    folder: Path | None = None
    """Of images such as the model will see; None: the training images."""

    def __post_init__(self) -> None:
        """Raise UsageError for a count below 1."""
        if self.count < 1:
            raise UsageError(f"INT8 needs at least one image to be calibrated with, not {self.count}")


@dataclass(frozen=True, eq=False)
class Calibration:
    """Images that decide ranges, and others of the same source on which the methods of quantising are compared."""

    source: str
    """Where they come from, for people; no path."""
    pixels: Pixels = field(repr=False)
    """uint8 [n, height, width, channels]."""
    held_out: Pixels = field(repr=False)

    @property
    def sha256(self) -> str:
        """Of the calibrating pixels: the same images give the same file."""
        return hashlib.sha256(self.pixels.tobytes()).hexdigest()


def calibration_from(folder: Path, card: ModelCard, count: int) -> Calibration:
    """Read up to `count` images below `folder` to calibrate with, and as many others to compare on; what is no image is passed over.

    Raises DataError if fewer than two can be read.
    """
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder} of images to calibrate with")
    images, reason = [], ""
    # Spread over the folder, since its files are sorted by something; whatever cannot be read makes room for the next.
    for file in shuffled(files_below(folder, "calibrate with"), np.random.default_rng(0)):
        try:
            images.append(reformat(file, card.preprocess))
        except ImageError as error:
            reason = f" ({error})"
            continue
        if len(images) == 2 * count:
            break
    if len(images) < 2:
        raise DataError(
            f"{folder} holds {len(images) or 'no'} readable image{'' if len(images) == 1 else 's'}{reason}: INT8 needs two at least, "
            "one to calibrate with and one to compare on, and some hundred to be good"
        )
    return Calibration(f"{len(images)} pictures of a folder", np.stack(images[::2]), np.stack(images[1::2]))


def files_below(folder: Path, purpose: str) -> list[Path]:
    """Return the images below `folder`, whether they can be read here or not, sorted, of the first MOST_FILES entries.

    Raises DataError that names what the images are for.
    """
    try:
        return sorted(file for file, _ in zip(folder.rglob("*"), range(MOST_FILES), strict=False) if file.is_file() and is_image_file(file))
    except OSError as error:
        raise DataError(f"{folder}: the images to {purpose} cannot be listed: {reason_of(error)}") from None


def shuffled(files: list[Path], random: np.random.Generator | np.random.RandomState) -> Iterator[Path]:
    """Yield the files in a random order."""
    for index in random.permutation(len(files)):
        yield files[index]
