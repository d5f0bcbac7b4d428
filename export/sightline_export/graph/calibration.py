"""Images that INT8 is calibrated with: of the training set, or of a folder that somebody names. All come through `sightline.reformat`."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from sightline.card import ModelCard
from sightline.errors import DataError, ImageError
from sightline.reformat import reformat
from sightline_export.gate.compare import Pixels

MOST_FILES: Final = 100_000
"""Of a folder, that are looked at."""


@dataclass(frozen=True)
class Calibration:
    """Images that decide ranges, and others of the same source on which the ways of quantising are compared."""

    source: str
    """Where they come from, for people; no path."""
    pixels: Pixels
    """uint8 [n, height, width, channels]."""
    held_out: Pixels

    @property
    def sha256(self) -> str:
        """Of the calibrating pixels: the same images give the same file."""
        return hashlib.sha256(self.pixels.tobytes()).hexdigest()


def calibration_from(folder: Path, card: ModelCard, count: int) -> Calibration:
    """Up to `count` images below `folder` to calibrate with, and as many others to compare on; what is no image is passed over.

    Raises DataError if fewer than two can be read.
    """
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder} of images to calibrate with")
    try:
        files = sorted(each for each, _ in zip(folder.rglob("*"), range(MOST_FILES), strict=False) if each.is_file())
    except OSError as error:
        raise DataError(f"{folder}: the images to calibrate with cannot be listed: {error.strerror or error}") from None
    found = []
    # Spread over the folder, since its files are sorted by something; whatever cannot be read makes room for the next.
    for index in np.random.default_rng(0).permutation(len(files)):
        try:
            found.append(reformat(files[index], card.preprocess))
        except ImageError:
            continue
        if len(found) == 2 * count:
            break
    if len(found) < 2:
        raise DataError(
            f"{folder} holds {len(found) or 'no'} readable image{'' if len(found) == 1 else 's'}: INT8 needs two at least, "
            "one to calibrate with and one to compare on, and some hundred to be good"
        )
    return Calibration(f"{len(found)} images of a folder", np.stack(found[::2]), np.stack(found[1::2]))
