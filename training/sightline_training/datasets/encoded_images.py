"""Makes splits of encoded files, on disk or inside an archive: read one at a time, decoded when they are opened."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from sightline.errors import DataError, ImageError
from sightline.host.files import FileRefused, read_bytes, reason_of
from sightline.image import MAX_BYTES, open_image
from sightline_training.datasets.image_set import ImageSet, Split
from sightline_training.datasets.look import MOST_PIXELS
from sightline_training.progress import tracked


@dataclass(frozen=True)
class EncodedImage:
    """One encoded image."""

    place: str
    """Where it lies, for error messages and lists: a path, or an archive's path and the member."""
    read: Callable[[], bytes] = field(repr=False)
    """Gives the encoded file. Raises OSError."""


def encoded_image_set(
    name: str,
    split: Split,
    images: Sequence[EncodedImage],
    labels: npt.NDArray[np.int64],
    *,
    digests: Sequence[bytes] | None = None,
    places: tuple[str, ...] = (),
) -> ImageSet:
    """Return a set of encoded images with one class index each, shape (N,).

    `digests` are the files' sha256 if they are known already, `places` the ImageSet's. The fingerprint is the sha256 of each file's
    sha256 and class (little-endian int64), in their order. Raises DataError, naming the file, if one cannot be read; whether it
    is an image, and still the same one, shows when it is opened.
    """
    labels = np.ascontiguousarray(labels, np.dtype("<i8"))
    if digests is None:
        digests = [hashlib.sha256(_content(image)).digest() for image in tracked(images, f"reading {name}/{split}")]
    fingerprint = hashlib.sha256()
    for digest, label in zip(digests, labels, strict=True):
        fingerprint.update(digest + label.tobytes())

    def opened(index: int) -> Image.Image:
        image = images[index]
        content = _content(image)
        if hashlib.sha256(content).digest() != digests[index]:
            raise DataError(f"{image.place}: the file was changed after it was first read. Run the same command again.")
        try:
            return open_image(content, MOST_PIXELS)
        except ImageError as error:
            raise DataError(f"{image.place}: {image_reason(error)}") from None

    return ImageSet(name, split, labels, fingerprint.hexdigest(), opened, places)


def read_file(path: Path) -> bytes:
    """Return the bytes of a file that may be an image, of which nobody knows what it is.

    Raises OSError if it cannot be read, ImageError if it is no file or larger than an image may be.
    """
    try:
        return read_bytes(path, MAX_BYTES)
    except FileRefused as error:
        raise ImageError(reason_of(error)) from None


def image_reason(error: ImageError) -> str:
    """Return what is wrong with an image that was given as bytes and so has no name in the message."""
    return str(error).removeprefix("image: ")


def _content(image: EncodedImage) -> bytes:
    try:
        return image.read()
    except ImageError as error:
        raise DataError(f"{image.place}: {error}") from None
    except OSError as error:
        raise DataError(f"{image.place}: cannot be read: {reason_of(error)}") from None
