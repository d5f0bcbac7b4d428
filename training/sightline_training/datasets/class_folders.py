"""Reads images that lie in one folder a class: finds and tries every file, so that nothing unreadable meets the training."""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, overload

import numpy as np

from sightline.errors import DataError, ImageError
from sightline.host.files import reason_of
from sightline.image import name_of, open_image
from sightline_training.datasets.duplicates import HASH_DTYPE, ImageHashes, Ints, hash_image
from sightline_training.datasets.encoded_images import EncodedImage, encoded_image_set, image_reason, read_file
from sightline_training.datasets.hash_cache import cache_hashes, cached_hashes
from sightline_training.datasets.image_set import ImageSet, Split
from sightline_training.datasets.listing import classes_in, enumerated, files_in
from sightline_training.datasets.look import LOOK_DTYPE, MOST_PIXELS, Looks, look_of
from sightline_training.progress import tracked

NAMED: Final = 20
"""Files that are left out are named up to so many, then counted."""
WORKERS: Final = 4
"""Images that are decoded at once, each of up to MOST_PIXELS: 3 GB, if all of them are."""
BATCH: Final = 64
"""Files that are given out to the workers together, between two movements of the progress bar."""


def class_folders(
    name: str, split: Split, folder: Path, classes: Sequence[str] | None = None
) -> tuple[ImageSet, tuple[str, ...], tuple[str, ...]]:
    """Return the images of `folder`/<class>/**, the names of the classes in order, and remarks on what was left out.

    As `ClassFolders` and `read_class_folders` say; places begin with the name of `folder`.
    """
    contents = read_class_folders(folder, classes, below=folder.name)
    return contents.images(name, split), contents.classes, contents.remarks


@dataclass(frozen=True, eq=False)
class ClassFolders:
    """The readable images of a folder, by class and path."""

    folder: Path
    classes: tuple[str, ...]
    places: tuple[str, ...]
    """Where each image lies below `folder`, with `/`."""
    below: str
    """What comes before a place in lists: "valid", or nothing."""
    labels: Ints
    """Class index of each image, shape (N,)."""
    digests: tuple[bytes, ...]
    """sha256 of each file's bytes."""
    hashes: ImageHashes
    """What duplicates are found by, shape (N,)."""
    looks: Looks
    """How each image looks before reformatting, shape (N,)."""
    remarks: tuple[str, ...]
    """A sentence on the files that were left out, if there are any."""

    def images(self, name: str, split: Split, indices: Ints | None = None) -> ImageSet:
        """Return those images, all of them if None, as a set; a file that changes from now on is refused when it is opened."""
        chosen = np.arange(len(self.places)) if indices is None else indices
        images = encoded_image_set(
            name,
            split,
            _Files(self.folder, [self.places[at] for at in chosen]),
            self.labels[chosen],
            digests=[self.digests[at] for at in chosen],
            places=tuple(self.place(int(at)) for at in chosen),
        )
        return replace(images, looks=self.looks[chosen], hashes=self.hashes[chosen])

    def place(self, index: int) -> str:
        """Return what image `index` is called in lists and remarks."""
        return name_of(f"{self.below}/{self.places[index]}" if self.below else self.places[index])


def read_class_folders(folder: Path, classes: Sequence[str] | None = None, *, below: str = "") -> ClassFolders:
    """Find and decode the images of `folder`/<class>/**: one class a folder, by name unless `classes` gives the order.

    A class folder may be a link; below it, links to folders are not followed. Raises DataError, naming the place, if a folder cannot
    be read, a class has no readable image, there are fewer than two classes or others than `classes`, a folder's name cannot be a label,
    or there are more than MAX_FILES files.
    """
    named = classes_in(folder, classes)
    listing = files_in(folder, list(named.values()))
    places = [place for of_class in listing.places for place in of_class]
    labels = np.repeat(np.arange(len(named)), [len(of_class) for of_class in listing.places])
    digests, hashes, looks, reasons = _decoded(folder, places)
    readable = np.array([reason is None for reason in reasons], bool)
    left_out = [f"{name_of(place)} ({reason})" for place, reason in zip(places, reasons, strict=True) if reason is not None]
    present = np.bincount(labels[readable], minlength=len(named))
    if not present.all():
        first = list(named.values())[int(np.argmin(present))]
        unusable = [remark for remark in [*left_out, *listing.passed_over] if remark.startswith(f"{name_of(first)}/")]
        reason = f": {enumerated(unusable, 3)} cannot be used" if unusable else ""
        raise DataError(f"{name_of(folder / first)}: the class has no readable image{reason}. Add images, or remove the folder.")
    return ClassFolders(
        folder,
        tuple(named),
        tuple(place for place, kept in zip(places, readable, strict=True) if kept),
        below,
        labels[readable],
        tuple(digest for digest, kept in zip(digests, readable, strict=True) if kept),
        hashes[readable],
        looks[readable],
        _remarks([*listing.passed_over, *left_out], below),
    )


class _Files(Sequence[EncodedImage]):
    """The files below a folder, as `EncodedImage` when they are asked for: a million of those would take a gigabyte."""

    def __init__(self, folder: Path, places: Sequence[str]) -> None:
        self.folder, self.places = folder, places

    def __len__(self) -> int:
        return len(self.places)

    @overload
    def __getitem__(self, at: int) -> EncodedImage: ...
    @overload
    def __getitem__(self, at: slice) -> "_Files": ...
    def __getitem__(self, at: int | slice) -> "EncodedImage | _Files":
        if isinstance(at, slice):
            return _Files(self.folder, self.places[at])
        path = self.folder / self.places[at]
        return EncodedImage(name_of(path), lambda: read_file(path))


def _decoded(folder: Path, places: Sequence[str]) -> tuple[list[bytes], ImageHashes, Looks, list[str | None]]:
    """Return sha256, hash and look of each file, and why it cannot be used, if so. Files that were decoded before are only read."""
    known = cached_hashes(folder)
    digests: list[bytes] = []
    reasons: list[str | None] = []
    hashes, looks = np.zeros(len(places), HASH_DTYPE), np.zeros(len(places), LOOK_DTYPE)

    def decode(place: str) -> tuple[bytes, tuple[ImageHashes, Looks] | None, str | None]:
        digest = b""
        try:
            content = read_file(folder / place)
            digest = hashlib.sha256(content).digest()
            return digest, known.get(digest) or _seen(content), None
        except ImageError as error:
            return digest, None, image_reason(error)
        except OSError as error:
            return digest, None, f"cannot be read: {reason_of(error)}"

    with ThreadPoolExecutor(WORKERS) as pool:
        for top in tracked(range(0, len(places), BATCH), f"reading {name_of(folder)}", bar_from=8):
            for digest, seen, reason in pool.map(decode, places[top : top + BATCH]):
                if seen is not None:
                    hashes[len(digests)], looks[len(digests)] = seen
                digests.append(digest)
                reasons.append(reason)
    readable = [index for index, reason in enumerate(reasons) if reason is None]
    if any(digests[index] not in known for index in readable):
        cache_hashes(folder, [digests[index] for index in readable], hashes[readable], looks[readable])
    return digests, hashes, looks, reasons


def _seen(content: bytes) -> tuple[ImageHashes, Looks]:
    image = open_image(content, MOST_PIXELS)
    return hash_image(image), look_of(image)


def _remarks(left_out: Sequence[str], below: str) -> tuple[str, ...]:
    if not left_out:
        return ()
    where = f"{below}: " if below else ""
    what = "1 file was" if len(left_out) == 1 else f"{len(left_out):,} files were"
    return (f"{where}{what} left out: {enumerated(left_out, NAMED)}.",)
