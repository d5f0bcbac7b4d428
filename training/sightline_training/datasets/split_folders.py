"""Reads class folders below folders that somebody split already, and finds the leaks between what is learned from and what is judged."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from sightline_training.datasets.class_folders import ClassFolders, read_class_folders
from sightline_training.datasets.dataset import Dataset
from sightline_training.datasets.duplicates import MOST_COMPARED, near_duplicates
from sightline_training.datasets.image_set import Split


def open_split_folders(name: str, root: Path, folders: Mapping[Split, str], classes: Sequence[str] | None = None) -> Dataset:
    """Return the images of `root`/<split's folder>/<class>/**; `folders` says which holds which split. Train and another must be there.

    `classes` gives the order of the classes; without it they are those of train, by name. Judged images that are or nearly are
    training images are counted apart. Raises DataError as `read_class_folders` does, also if the classes differ between the splits.
    """
    train = read_class_folders(root / folders["train"], classes, below=folders["train"])
    others: dict[Split, ClassFolders] = {
        split: read_class_folders(root / folder, train.classes, below=folder) for split, folder in folders.items() if split != "train"
    }
    judged = others["test" if "test" in others else "valid"]
    near = near_duplicates(train.hashes, train.labels, judged.hashes, judged.labels)
    remarks = []
    if near:
        first_judged, first_known = next(iter(near.items()))
        remarks.append(
            f"{len(near):,} of {len(judged.places):,} images in {judged.below}/ are or nearly are training images, such as "
            f"{judged.place(first_judged)} and {train.place(first_known)}: the accuracy without them stands beside the other."
        )
    remarks += unsearched(len(train.places), len(judged.places))
    for contents in (train, *others.values()):
        remarks += contents.remarks
    return Dataset(
        train=train.images(name, "train"),
        valid=others["valid"].images(name, "valid") if "valid" in others else None,
        test=others["test"].images(name, "test") if "test" in others else None,
        labels=None if classes is not None else train.classes,
        remarks=tuple(remarks),
        near_duplicates=frozenset(near),
    )


def unsearched(known: int, judged: int) -> list[str]:
    """Return a remark if there are too many images to compare each known one with each judged one."""
    if known * judged <= MOST_COMPARED**2:
        return []
    return [f"of so many images only exact copies were looked for, not nearly the same ones (at most {MOST_COMPARED:,} can be compared)."]
