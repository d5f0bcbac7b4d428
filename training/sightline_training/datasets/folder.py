"""The user's own images: a folder of class folders, or such folders below train/ and valid/ (and test/)."""

from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np

from sightline.errors import DataError
from sightline_training.datasets.class_folders import Found, look_through
from sightline_training.datasets.dataset import Dataset
from sightline_training.datasets.duplicates import Ints, mixed, same_photo
from sightline_training.datasets.given_splits import open_given, unsearched
from sightline_training.datasets.image_set import Split
from sightline_training.datasets.listing import enumerated, folders_in
from sightline_training.datasets.split import split_apart

NAME: Final = "folder"
SPLITS: Final[dict[str, Split]] = {
    "train": "train",
    "training": "train",
    "valid": "valid",
    "val": "valid",
    "validation": "valid",
    "test": "test",
}
"""What the folder of a split may be called, in lower case."""


def open_folder(root: Path) -> Dataset:
    """The images of `root`/<class>/**, split here; or those of `root`/train/<class>/** and valid or test or both, as they are given.

    Names of the classes are those of the folders. A split made here is stratified and always the same for the same files: about a
    fifth for validation, never one photo on both sides. Where the split is given, judged images that are or nearly are training
    images are counted apart. Raises DataError, naming the place, if there is no such folder, if a class is alone, empty, or not
    in all splits, or has too few photos to be split.
    """
    given = _given_splits(root)
    if given:
        return _as_given(root, given)
    inside = folders_in(root)
    # Only images to learn from: they are split like any others.
    return _split_here(root / inside[0] if [each.lower() for each in inside] == ["train"] else root)


def _given_splits(root: Path) -> dict[Split, str]:
    """Split → name of its folder; empty if `root` holds classes. A class may be called train, but not beside valid or test."""
    given: dict[Split, str] = {}
    for name in folders_in(root):
        split = SPLITS.get(name.lower())
        if split in given:
            raise DataError(f"{root}: both {given[split]}/ and {name}/ seem to hold the {split} images. Keep one of them.")
        if split is not None:
            given[split] = name
    return given if "train" in given and len(given) > 1 else {}


def _as_given(root: Path, given: dict[Split, str]) -> Dataset:
    dataset = open_given(NAME, root, given)
    beside = [f"{each}/" for each in folders_in(root) if each not in given.values()]
    if beside:
        dataset = replace(dataset, remarks=(*dataset.remarks, f"left out, beside {given['train']}/: {enumerated(beside, 20)}."))
    return dataset


def _split_here(folder: Path) -> Dataset:
    found = look_through(folder)
    groups = same_photo(found.looks, found.labels)
    train, valid = split_apart(found.labels, groups, found.classes)
    remarks = [f"{len(valid):,} of {len(found.places):,} images were set aside for validation here, the same ones every time."]
    remarks += _copies(found, groups) + unsearched(len(found.places), len(found.places))
    return Dataset(
        train=found.images(NAME, "train", train),
        valid=found.images(NAME, "valid", valid),
        labels=found.classes,
        remarks=(*remarks, *found.remarks),
    )


def _copies(found: Found, groups: Ints) -> list[str]:
    """What to say of images that show one photo."""
    remarks = []
    torn = mixed(groups, found.labels)
    several = np.bincount(groups, minlength=len(groups))[groups] > 1
    for concerned, what in (
        (several & ~torn, "are or nearly are the same as another one, such as {}: they stand on one side of the split."),
        (torn, "are or nearly are the same as one of another class, such as {}: they are learned from, and none is judged by."),
    ):
        if concerned.any():
            pair = np.flatnonzero(groups == groups[np.argmax(concerned)])
            # Of a group with several classes, two of different ones.
            one, other = pair[0], next((at for at in pair[1:] if found.labels[at] != found.labels[pair[0]]), pair[1])
            remarks.append(f"{int(concerned.sum()):,} images {what.format(f'{found.place(int(one))} and {found.place(int(other))}')}")
    return remarks
