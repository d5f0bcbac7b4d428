"""A model that may be published, a run or an imported one: its network, its card, images to compare on, and where it comes from."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image
from torch import nn

from sightline.card import ModelCard
from sightline.preprocess import Preprocess
from sightline.repository.report import PreprocessOrigin
from sightline_export.graph.calibration import Calibration, CalibrationSettings

UNKNOWN: Final = -1
"""The class of an image that is asked about, but not counted."""


class ComparisonImages(Protocol):
    """Images that the gate compares on: a split of a dataset (`sightline_training.datasets.image_set.ImageSet`), or others."""

    @property
    def name(self) -> str:
        """Of the dataset, or of what stands in for one."""

    @property
    def split(self) -> str:
        """What kind of images of it: `test`, `given`, `made`."""

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """Class of each image, shape (N,); -1 where nobody knows."""

    @property
    def fingerprint(self) -> str:
        """Hexadecimal sha256: the same images have the same one."""

    def __len__(self) -> int:
        """Number of images."""

    def open(self, index: int) -> Image.Image:
        """Image `index` as it was before any preprocessing."""

    def pixels(self, spec: Preprocess, indices: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        """The images `indices` through `sightline.reformat`: uint8 [n, height, width, channels]."""


@dataclass(frozen=True)
class ExportCandidate:
    """One classifier that may become a version. What takes time is a function, which is called when its turn comes."""

    card: ModelCard
    network: Callable[[], nn.Module] = field(repr=False)
    """In eval mode on the CPU: uint8 pixels [N, H, W, C] → probabilities float32 [N, classes]."""
    images: Callable[[int], ComparisonImages] = field(repr=False)
    """The images that the gate compares on; it looks at so many at most."""
    calibration: Callable[[ModelCard, CalibrationSettings], Calibration] = field(repr=False)
    """Images to calibrate with. Raises DataError or UsageError if there are none."""
    provenance: Mapping[str, object]
    """Where it comes from, for the version's report; no paths."""
    preprocess_origin: PreprocessOrigin | None = None
    """How its preprocessing is known; None of a run, which saw the images so itself."""
    reported: tuple[int, float] | None = None
    """On how many of the images which accuracy (0..1) was reported of it; None if nobody knows what they show."""
