"""Splits whose images are encoded files, on disk or inside an archive: read one at a time, decoded when they are asked for."""

import hashlib
import os
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from sightline.errors import DataError, ImageError
from sightline.image import MAX_BYTES, open_image
from sightline_training.datasets.image_set import ImageSet, Split
from sightline_training.progress import tracked


@dataclass(frozen=True)
class Encoded:
    """One encoded image."""

    place: str
    """Where it lies, for error messages and lists: a path, or an archive's path and the member."""
    read: Callable[[], bytes] = field(repr=False)
    """Gives the encoded file. Raises OSError."""


def encoded_images(
    name: str,
    split: Split,
    images: Sequence[Encoded],
    labels: npt.NDArray[np.int64],
    *,
    digests: Sequence[bytes] | None = None,
    places: tuple[str, ...] = (),
) -> ImageSet:
    """A set of encoded images with one class index each, shape (N,).

    `digests` are the files' sha256 if they are known already, `places` the ImageSet's. The fingerprint is the sha256 of each file's
    sha256 and class (little-endian int64), in their order. Raises DataError, naming the file, if one cannot be read; whether it
    is an image, and still the same one, shows when it is opened.
    """
    labels = np.ascontiguousarray(labels, np.dtype("<i8"))
    if digests is None:
        digests = [hashlib.sha256(_content(each)).digest() for each in tracked(images, f"reading {name}/{split}")]
    fingerprint = hashlib.sha256()
    for digest, label in zip(digests, labels, strict=True):
        fingerprint.update(digest + label.tobytes())

    def opened(index: int) -> Image.Image:
        image = images[index]
        content = _content(image)
        if hashlib.sha256(content).digest() != digests[index]:
            raise DataError(f"{image.place}: the file was changed after it was first read. Run the same command again.")
        try:
            return open_image(content)
        except ImageError as error:
            raise DataError(f"{image.place}: {reason_of(error)}") from None

    return ImageSet(name, split, labels, fingerprint.hexdigest(), opened, places)


def read_file(path: Path) -> bytes:
    """The bytes of a file that may be an image, of which nobody knows what it is.

    Raises OSError if it cannot be read, ImageError if it is no file or larger than an image may be.
    """
    # O_NONBLOCK: opening a FIFO nobody writes to would otherwise wait for ever.
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ImageError("not a file but a pipe, a socket or a device")
        if status.st_size > MAX_BYTES:
            raise ImageError(f"larger than {MAX_BYTES // 1024**2} MiB, the most that one image may have")
        return file.read(max(status.st_size, 65_536))


def reason_of(error: ImageError) -> str:
    """What is wrong with an image that was given as bytes and so has no name in the message."""
    return str(error).removeprefix("image: ")


def _content(image: Encoded) -> bytes:
    try:
        return image.read()
    except ImageError as error:
        raise DataError(f"{image.place}: {error}") from None
    except OSError as error:
        raise DataError(f"{image.place}: cannot be read: {error.strerror or error}") from None
