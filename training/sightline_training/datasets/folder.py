"""The user's own images: a folder of class folders, or such folders below train/ and valid/ (and test/)."""

from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np

from sightline.errors import DataError
from sightline_training.datasets.class_folders import ClassFolders, read_class_folders
from sightline_training.datasets.dataset import Dataset
from sightline_training.datasets.duplicates import Ints, mixed, same_photo
from sightline_training.datasets.image_set import Split
from sightline_training.datasets.listing import enumerated, folders_in
from sightline_training.datasets.split import split_apart
from sightline_training.datasets.split_folders import open_split_folders, unsearched

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
    """Return the images of `root`/<class>/**, split here; or those of `root`/train/<class>/** and valid or test or both, as they are split.

    Names of the classes are those of the folders. A split made here is stratified and always the same for the same files: about a
    fifth for validation, never one photo on both sides. Where the images are split already, judged images that are or nearly are training
    images are counted apart. Raises DataError, naming the place, if there is no such folder, if a class is alone, empty, or not
    in all splits, or has too few photos to be split.
    """
    split_folders = _split_folders(root)
    if split_folders:
        return _already_split(root, split_folders)
    inside = folders_in(root)
    # Only images to learn from: they are split like any others.
    return _split_here(root / inside[0] if [name.lower() for name in inside] == ["train"] else root)


def _split_folders(root: Path) -> dict[Split, str]:
    """Return split → name of its folder; empty if `root` holds classes. A class may be called train, but not beside valid or test."""
    folders: dict[Split, str] = {}
    for name in folders_in(root):
        split = SPLITS.get(name.lower())
        if split in folders:
            raise DataError(f"{root}: both {folders[split]}/ and {name}/ seem to hold the {split} images. Keep one of them.")
        if split is not None:
            folders[split] = name
    return folders if "train" in folders and len(folders) > 1 else {}


def _already_split(root: Path, folders: dict[Split, str]) -> Dataset:
    dataset = open_split_folders(NAME, root, folders)
    beside = [f"{name}/" for name in folders_in(root) if name not in folders.values()]
    if beside:
        dataset = replace(dataset, remarks=(*dataset.remarks, f"left out, beside {folders['train']}/: {enumerated(beside, 20)}."))
    return dataset


def _split_here(folder: Path) -> Dataset:
    contents = read_class_folders(folder)
    groups = same_photo(contents.hashes, contents.labels)
    train, valid = split_apart(contents.labels, groups, contents.classes)
    remarks = [f"{len(valid):,} of {len(contents.places):,} images were set aside for validation here, the same ones every time."]
    remarks += _copies(contents, groups) + unsearched(len(contents.places), len(contents.places))
    return Dataset(
        train=contents.images(NAME, "train", train),
        valid=contents.images(NAME, "valid", valid),
        labels=contents.classes,
        remarks=(*remarks, *contents.remarks),
    )


def _copies(contents: ClassFolders, groups: Ints) -> list[str]:
    """Return what to say of images that show one photo."""
    remarks = []
    torn = mixed(groups, contents.labels)
    several = np.bincount(groups, minlength=len(groups))[groups] > 1
    for concerned, what in (
        (several & ~torn, "are or nearly are the same as another one, such as {}: they stand on one side of the split."),
        (torn, "are or nearly are the same as one of another class, such as {}: they are learned from, and none is judged by."),
    ):
        if concerned.any():
            pair = np.flatnonzero(groups == groups[np.argmax(concerned)])
            # Of a group with several classes, two of different ones.
            first, second = pair[0], next((at for at in pair[1:] if contents.labels[at] != contents.labels[pair[0]]), pair[1])
            remarks.append(
                f"{int(concerned.sum()):,} images {what.format(f'{contents.place(int(first))} and {contents.place(int(second))}')}"
            )
    return remarks
