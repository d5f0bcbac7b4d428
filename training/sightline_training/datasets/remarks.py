"""Says before a training what would make it learn, or be judged by, something else than its user thinks.

The figures at the end look well all the same: a class that is one image is always right, and images that nobody sees are all alike.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from sightline_training.datasets.dataset import Dataset
from sightline_training.datasets.duplicates import Ints, same_photo
from sightline_training.datasets.image_set import ImageSet, Split
from sightline_training.datasets.look import KINDS, LOOK_DTYPE, Looks, look_of

NAMES: Final[dict[Split, str]] = {"train": "training", "valid": "validation", "test": "test"}
"""What the images of each split are called."""

NEARLY_ALL: Final = 0.95
"""Of the images that were looked at."""
NARROW: Final = 1 / 16
"""Of the range of values: what samples of 12 bits use of 16."""
COPIES: Final = 0.9
"""Share of a class's images that may not show a tenth as many different ones, or fewer."""
A_FEW: Final = 5
"""Fewer images of a class than that say nothing of it."""
TIMES_LARGER: Final = 2.0
"""At half the side an image holds none of the finest details of the other: by the sampling theorem, those between the two Nyquist
frequencies. Scaled to one size, the two differ in sharpness."""

OPENED_OF_CLASS, OPENED = 20, 1000
"""How many images are opened, of a class and in all, where nobody looked at them when they were found."""
COMPARED_OF_CLASS, COMPARED = 100, 4000
"""How many images are compared with one another, of a class and in all: under a second."""


@dataclass(frozen=True, eq=False)
class _Looked:
    """Some images of a split, or all, and how they look."""

    images: ImageSet
    indices: Ints
    looks: Looks

    @property
    def name(self) -> str:
        return NAMES[self.images.split]

    def count(self, which: npt.NDArray[np.bool_]) -> str:
        """Return `38 of 40`."""
        return f"{int(which.sum()):,} of {len(which):,}"

    def first(self, which: npt.NDArray[np.bool_]) -> str:
        """Return where the first such image lies."""
        return _place(self.images, int(self.indices[np.argmax(which)]))

    @property
    def kind(self) -> int | None:
        """The kind of nearly all; None if they are of several."""
        counts = np.bincount(self.looks["kind"], minlength=len(KINDS))
        return int(counts.argmax()) if counts.max() >= NEARLY_ALL * len(self.looks) else None


def remarks_on(dataset: Dataset, labels: Sequence[str]) -> tuple[str, ...]:
    """Return what a user should hear of the images before they are learned from, a few sentences each: what, where, and what to do.

    `labels` are the names of the classes. Images of class folders were looked at when they were read; of others a sample is opened.
    Raises DataError if an image of the sample cannot be read.
    """
    looked = {images.split: _looked(images) for images in dataset.splits}
    remarks = [_narrow(split) for split in looked.values()]
    if dataset.train is not None:
        remarks += _copies(dataset.train, labels)
        train = looked["train"]
        for judged in looked.values():
            if judged is not train:
                remarks += [_of_two_kinds(train, judged), _transparent_in_one(train, judged), _of_two_sizes(train, judged)]
    return tuple(filter(None, remarks))


def _looked(images: ImageSet) -> _Looked:
    if images.looks is not None:
        return _Looked(images, np.arange(len(images)), images.looks)
    indices = _sample(images, OPENED_OF_CLASS, OPENED)
    return _Looked(images, indices, np.array([look_of(images.open(int(index))) for index in indices], LOOK_DTYPE))


def _sample(images: ImageSet, of_class: int, in_all: int) -> Ints:
    """Return indices, ascending: of each class at most so many images, evenly spread, and A_FEW even where that is too many in all."""
    classes = np.unique(images.labels)
    count = max(A_FEW, min(of_class, in_all // len(classes)))
    chosen = []
    for label in classes:
        members = np.flatnonzero(images.labels == label)
        chosen.append(members[np.linspace(0, len(members) - 1, min(count, len(members))).astype(np.int64)])
    return np.sort(np.concatenate(chosen))


def _place(images: ImageSet, index: int) -> str:
    return images.places[index] if images.places else f"image {index}"


def _narrow(looked: _Looked) -> str:
    narrow = looked.looks["range"] <= NARROW
    if narrow.mean() < NEARLY_ALL:
        return ""
    return (
        f"{looked.count(narrow)} {looked.name} images use at most a sixteenth of the range of values, such as {looked.first(narrow)}: "
        "12-bit data in 16-bit files do. The network sees next to nothing in them: stretch the values to the full range, also those of "
        "the images that you will classify."
    )


def _copies(images: ImageSet, labels: Sequence[str]) -> list[str]:
    """Return a remark for each class of which COPIES of the images show at most a tenth as many different ones."""
    indices = _sample(images, COMPARED_OF_CLASS, COMPARED)
    groups = _groups(images, indices)
    remarks = []
    for label in np.unique(images.labels):
        of_class = np.flatnonzero(images.labels[indices] == label)
        if len(of_class) < A_FEW:
            continue
        numbers, earliest, sizes = np.unique(groups[of_class], return_index=True, return_counts=True)
        largest = np.lexsort((earliest, -sizes))
        covered = np.cumsum(sizes[largest])
        shown = int(np.argmax(covered >= COPIES * len(of_class))) + 1
        if shown > max(1, len(of_class) // 10):
            continue
        first, second = indices[of_class[groups[of_class] == numbers[largest[0]]]][:2]
        remarks.append(
            f"the class {labels[label]}: {covered[shown - 1]:,} of {len(of_class):,} training images are copies or near copies of "
            f"{'one image' if shown == 1 else f'{shown:,} images'}, such as {_place(images, int(first))} and "
            f"{_place(images, int(second))}. The network learns that and not the class: add images that differ."
        )
    return remarks


def _groups(images: ImageSet, indices: Ints) -> Ints:
    """Return a number for each of these images, shape (N,): the same for copies, and for near copies where their hashes are known."""
    if images.hashes is not None:
        return same_photo(images.hashes[indices], images.labels[indices])
    numbers: dict[bytes, int] = {}
    decoded = (images.open(int(index)) for index in indices)
    digests = (hashlib.sha256(f"{image.mode} {image.size} ".encode() + image.tobytes()).digest() for image in decoded)
    return np.array([numbers.setdefault(digest, len(numbers)) for digest in digests], np.int64)


def _of_two_kinds(train: _Looked, judged: _Looked) -> str:
    if train.kind is None or judged.kind is None or train.kind == judged.kind:
        return ""
    both = []
    for looked in (train, judged):
        of_kind = looked.looks["kind"] == looked.kind
        both.append(f"{looked.count(of_kind)} {looked.name} images are {KINDS[looked.kind or 0]}, such as {looked.first(of_kind)}")
    seen = (
        "They are not of one kind"
        if 2 in (train.kind, judged.kind)
        else "The network gets the same of both, but they were not made in one way"
    )
    return f"{', but '.join(both)}. {seen}: see to it that both are as those that you will classify."


def _transparent_in_one(train: _Looked, judged: _Looked) -> str:
    some, none = (train, judged) if train.looks["transparent"].any() else (judged, train)
    transparent = some.looks["transparent"]
    if transparent.mean() < NEARLY_ALL or none.looks["transparent"].any():
        return ""
    return (
        f"{some.count(transparent)} {some.name} images have transparent pixels, such as {some.first(transparent)}, and none of the "
        f"{len(none.looks):,} {none.name} images. The network sees the specification's background under them: save both in one way."
    )


def _of_two_sizes(train: _Looked, judged: _Looked) -> str:
    sides = [float(np.median(looked.looks["side"])) for looked in (train, judged)]
    if max(sides) < TIMES_LARGER * min(sides):
        return ""
    return (
        f"the training images have {sides[0]:,.0f} pixels a side (median), the {judged.name} images {sides[1]:,.0f}. Scaled to the "
        "network's size, they differ in sharpness: make both as large as those that you will classify."
    )
