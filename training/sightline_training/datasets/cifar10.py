"""CIFAR-10, 32 × 32 colour images of ten kinds of things (Krizhevsky 2009): two zip files of images, or the published archive."""

import gzip
import io
import tarfile
import zlib
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from sightline.console import messages
from sightline.errors import DataError
from sightline_training.datasets.dataset import Dataset, hold_out
from sightline_training.datasets.encoded_images import EncodedImage, encoded_image_set
from sightline_training.datasets.fetch import fetch_from_mirrors, why_not_fetched
from sightline_training.datasets.image_set import ImageSet, Split, image_set_of
from sightline_training.datasets.zipped import zipped_images

CLASSES: Final = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
"""In the order of the published labels 0 to 9."""
VALID_SHARE: Final = 20
"""One training image in so many is held out for validation: 2,500 of 50,000."""
ZIPS: Final = ("train.zip", "test.zip")
ARCHIVE: Final = "cifar-10-binary.tar.gz"
MD5: Final = "c32a1d4ab5d03f1284b67883e8d87530"
MIRRORS: Final = ("https://www.cs.toronto.edu/~kriz/",)
"""Where it is published; the page names the md5. The version "for Python" is a pickle, and is not read."""
TRAIN_FILES: Final = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
TEST_FILE: Final = "test_batch.bin"
RECORD_BYTES: Final = 1 + 3 * 32 * 32
"""A label, then 1,024 bytes each of red, green and blue, row by row."""
MAX_RECORDS: Final = 20_000
"""Of one file; the published ones have 10,000."""
MAX_UNPACKED_BYTES: Final = 512 * 1024**2
"""Of the whole archive, which has 184 million."""

_Labels = npt.NDArray[np.int64]


def open_cifar10(root: Path) -> Dataset:
    """47,500 training and 2,500 validation images from the training files, 10,000 test images.

    `root`/cifar10 holds train.zip and test.zip, with images `<class>/<name>`, or else the published cifar-10-binary.tar.gz, which is
    fetched if there is neither. Raises DataError if a file is damaged, or missing and not to be had.
    """
    folder = root / "cifar10"
    if all((folder / name).is_file() for name in ZIPS):
        return _of_zips(folder)
    if not (folder / ARCHIVE).is_file():
        _fetch(folder)
    planes, labels = _unpacked(folder / ARCHIVE)
    to_learn = np.concatenate([planes[name] for name in TRAIN_FILES])
    classes = np.concatenate([labels[name] for name in TRAIN_FILES])
    train, valid = hold_out(classes, len(classes) // VALID_SHARE)
    return Dataset(
        train=image_set_of("cifar10", "train", to_learn[train], classes[train]),
        valid=image_set_of("cifar10", "valid", to_learn[valid], classes[valid]),
        test=image_set_of("cifar10", "test", planes[TEST_FILE], labels[TEST_FILE]),
    )


def _of_zips(folder: Path) -> Dataset:
    (images, labels), (tested, test_labels) = (zipped_images(folder / name, CLASSES) for name in ZIPS)
    train, valid = hold_out(labels, len(labels) // VALID_SHARE)
    return Dataset(
        train=_encoded(folder, "train", [images[at] for at in train], labels[train]),
        valid=_encoded(folder, "valid", [images[at] for at in valid], labels[valid]),
        test=_encoded(folder, "test", tested, test_labels),
    )


def _encoded(folder: Path, split: Split, images: list[EncodedImage], labels: _Labels) -> ImageSet:
    places = tuple(image.place.removeprefix(f"{folder}/") for image in images)
    return encoded_image_set("cifar10", split, images, labels, places=places)


def _unpacked(path: Path) -> tuple[dict[str, npt.NDArray[np.uint8]], dict[str, _Labels]]:
    """Images uint8 [N, 32, 32, 3] and classes [N] of each file of the archive, the training files in their order."""
    contents: dict[str, bytes] = {}
    try:
        # As a stream: members are read in passing, nothing is written, and no name in the archive is ever a path.
        with gzip.open(path) as packed, _Bounded(packed) as stream, tarfile.open(fileobj=stream, mode="r|") as archive:
            for member in archive:
                name = member.name.rpartition("/")[2]
                if not member.isfile() or name not in (*TRAIN_FILES, TEST_FILE):
                    continue
                if name in contents or not 0 < member.size <= MAX_RECORDS * RECORD_BYTES or member.size % RECORD_BYTES:
                    raise DataError(
                        f"{path}: {name} is there twice, or has not 1 to {MAX_RECORDS:,} records of {RECORD_BYTES:,} bytes. {_ADVICE}"
                    )
                content = archive.extractfile(member)
                contents[name] = content.read() if content is not None else b""
            # gzip's checksum stands at the end.
            while stream.read(1024**2):
                pass
    except (OSError, EOFError, tarfile.TarError, zlib.error, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path}: no archive of CIFAR-10 that can be read ({reason}). {_ADVICE}") from None
    planes, labels = {}, {}
    for name in (*TRAIN_FILES, TEST_FILE):
        if name not in contents:
            raise DataError(f"{path}: the archive holds no {name}. {_ADVICE}")
        records = np.frombuffer(contents.pop(name), np.uint8).reshape(-1, RECORD_BYTES)
        if records[:, 0].max() >= len(CLASSES):
            at = int(np.argmax(records[:, 0] >= len(CLASSES)))
            raise DataError(f"{path}: {name}: label {records[at, 0]} of record {at} is no class (0 to {len(CLASSES) - 1}). {_ADVICE}")
        labels[name] = records[:, 0].astype(np.int64)
        planes[name] = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return planes, labels


_ADVICE: Final = "Delete it to have it fetched again, or put a good copy in its place."


class _Bounded(io.RawIOBase):
    """A stream that ends in an error after MAX_UNPACKED_BYTES: skipping what is not wanted unpacks it too."""

    def __init__(self, stream: gzip.GzipFile) -> None:
        self.stream, self.left = stream, MAX_UNPACKED_BYTES

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        content = self.stream.read(min(size, self.left + 1) if size >= 0 else self.left + 1)
        self.left -= len(content)
        if self.left < 0:
            raise OSError(f"more than {MAX_UNPACKED_BYTES // 1024**2} MiB unpacked")
        return content


def _fetch(folder: Path) -> None:
    messages().print(f"fetching CIFAR-10 into {folder} (162 MiB)")
    try:
        fetch_from_mirrors(folder, {ARCHIVE: MD5}, MIRRORS)
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"CIFAR-10 is not in {folder} and could not be fetched ({why_not_fetched(error)}). Put {ARCHIVE} from {MIRRORS[0]} there, or "
            f"{' and '.join(ZIPS)} with images in folders named after the classes."
        ) from None
