"""Images to compare on where there is no dataset: those of a folder, or generated ones, of which nobody knows what they show."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from sightline.card import ModelCard
from sightline.errors import DataError, ImageError
from sightline.image import open_image
from sightline.preprocess import Preprocess
from sightline.reformatting import reformat
from sightline_export.candidate import UNKNOWN
from sightline_export.graph.calibration import files_below, shuffled

GENERATED: Final = 64
"""Images that are generated if nobody says how many."""

GRIDS: Final = (2, 3, 5, 8, 13, 24)
"""Patches a side: from slopes over the whole image to detail as fine as a photo's."""

ASPECTS: Final = ((1.0, 1.0), (1.0, 1.5), (1.4, 1.0), (1.15, 1.3))
"""Height and width as multiples of the network's input, so that scaling and cropping have something to do."""


@dataclass(frozen=True, eq=False)
class ProbeImages:
    """Images that are no dataset's, opened one at a time."""

    name: str
    split: str
    count: int
    fingerprint: str
    """Hexadecimal sha256 of the pixels that the network sees."""
    opener: Callable[[int], Image.Image] = field(repr=False)
    labels: npt.NDArray[np.int64] = field(repr=False)
    """Class of each image, shape (count,); UNKNOWN where nobody knows."""

    def __len__(self) -> int:
        """Number of images."""
        return self.count

    def open(self, index: int) -> Image.Image:
        """Open image `index`, before any preprocessing."""
        return self.opener(index)

    def pixels(self, spec: Preprocess, indices: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        """Reformat the images `indices`: uint8 [n, height, width, channels]."""
        return np.stack([reformat(self.open(int(index)), spec) for index in indices])


def images_below(folder: Path, card: ModelCard, most: int, classes: Mapping[Path, int] = MappingProxyType({})) -> ProbeImages:
    """Return up to `most` images below `folder`, spread over it; what is no image, or cannot be read, is passed over.

    `classes` are those that are known. Raises DataError, with the reason of one of them, if none can be read.
    """
    files = files_below(folder, "compare on")
    readable: list[Path] = []
    reason = ""
    digest = hashlib.sha256()
    for file in shuffled(files, np.random.RandomState(0)):
        try:
            digest.update(reformat(file, card.preprocess).tobytes())
        except ImageError as error:
            reason = f": {error}"
            continue
        readable.append(file)
        if len(readable) == most:
            break
    if not readable:
        raise DataError(f"{folder} holds no readable image to compare on{reason}")
    return ProbeImages(
        f"a folder of {len(files):,} images",
        "given",
        len(readable),
        digest.hexdigest(),
        lambda index: open_image(readable[index]),
        np.array([classes.get(file, UNKNOWN) for file in readable], np.int64),
    )


def generated_images(card: ModelCard, count: int) -> ProbeImages:
    """Return `count` images of smooth random colours, the same ones each time."""
    height, width = card.preprocess.size

    def draw(index: int) -> Image.Image:
        # The old generator's stream is frozen for ever; the new ones' may change with numpy's version.
        grid, (tall, broad) = GRIDS[index % len(GRIDS)], ASPECTS[index % len(ASPECTS)]
        patches = np.random.RandomState(index).randint(0, 256, (grid, grid, 3)).astype(np.uint8)
        return Image.fromarray(patches).resize((round(broad * width), round(tall * height)), Image.Resampling.BICUBIC)

    digest = hashlib.sha256()
    for index in range(count):
        digest.update(reformat(draw(index), card.preprocess).tobytes())
    return ProbeImages("smooth random colours", "made", count, digest.hexdigest(), draw, np.full(count, UNKNOWN, np.int64))
