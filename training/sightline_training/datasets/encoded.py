"""Splits whose pictures are encoded files, on disk or inside an archive: read one at a time, decoded when they are asked for."""

import hashlib
import os
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from sightline.errors import DataError, PictureError
from sightline.image import MAX_BYTES, open_picture
from sightline_training.datasets.image_set import PictureSet, Split
from sightline_training.progress import tracked


@dataclass(frozen=True)
class Encoded:
    """One encoded picture."""

    place: str
    """Where it lies, for error messages and lists: a path, or an archive's path and the member."""
    read: Callable[[], bytes] = field(repr=False)
    """Gives the encoded file. Raises OSError."""


def encoded_pictures(
    name: str,
    split: Split,
    pictures: Sequence[Encoded],
    labels: npt.NDArray[np.int64],
    *,
    digests: Sequence[bytes] | None = None,
    places: tuple[str, ...] = (),
) -> PictureSet:
    """A set of encoded pictures with one class index each, shape (N,).

    `digests` are the files' sha256 if they are known already, `places` the PictureSet's. The fingerprint is the sha256 of each file's
    sha256 and class (little-endian int64), in their order. Raises DataError, naming the file, if one cannot be read; whether it
    is a picture, and still the same one, shows when it is opened.
    """
    labels = np.ascontiguousarray(labels, np.dtype("<i8"))
    if digests is None:
        digests = [hashlib.sha256(_content(each)).digest() for each in tracked(pictures, f"reading {name}/{split}")]
    fingerprint = hashlib.sha256()
    for digest, label in zip(digests, labels, strict=True):
        fingerprint.update(digest + label.tobytes())

    def opened(index: int) -> Image.Image:
        picture = pictures[index]
        content = _content(picture)
        if hashlib.sha256(content).digest() != digests[index]:
            raise DataError(f"{picture.place}: the file was changed after it was first read. Run the same command again.")
        try:
            return open_picture(content)
        except PictureError as error:
            raise DataError(f"{picture.place}: {reason_of(error)}") from None

    return PictureSet(name, split, labels, fingerprint.hexdigest(), opened, places)


def read_file(path: Path) -> bytes:
    """The bytes of a file that may be a picture, of which nobody knows what it is.

    Raises OSError if it cannot be read, PictureError if it is no file or larger than a picture may be.
    """
    # O_NONBLOCK: opening a FIFO nobody writes to would otherwise wait for ever.
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise PictureError("not a file but a pipe, a socket or a device")
        if status.st_size > MAX_BYTES:
            raise PictureError(f"larger than {MAX_BYTES // 1024**2} MiB, the most that one picture may have")
        return file.read(max(status.st_size, 65_536))


def reason_of(error: PictureError) -> str:
    """What is wrong with a picture that was given as bytes and so has no name in the message."""
    return str(error).removeprefix("picture: ")


def _content(picture: Encoded) -> bytes:
    try:
        return picture.read()
    except PictureError as error:
        raise DataError(f"{picture.place}: {error}") from None
    except OSError as error:
        raise DataError(f"{picture.place}: cannot be read: {error.strerror or error}") from None
