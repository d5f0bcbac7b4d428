"""Class folders below folders that somebody split already: learned from one, judged by another, with the leaks between them found."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from sightline_training.datasets.class_folders import Found, look_through
from sightline_training.datasets.dataset import Dataset
from sightline_training.datasets.duplicates import MOST_COMPARED, near_duplicates
from sightline_training.datasets.image_set import Split


def open_given(name: str, root: Path, given: Mapping[Split, str], classes: Sequence[str] | None = None) -> Dataset:
    """The images of `root`/<split's folder>/<class>/**, `given` saying which folder holds which split; train and another must be there.

    `classes` gives the order of the classes; without it they are those of train, by name. Judged images that are or nearly are
    training images are counted apart. Raises DataError as `look_through` does, also if the classes differ between the splits.
    """
    train = look_through(root / given["train"], classes, below=given["train"])
    others: dict[Split, Found] = {
        split: look_through(root / folder, train.classes, below=folder) for split, folder in given.items() if split != "train"
    }
    judged = others["test" if "test" in others else "valid"]
    near = near_duplicates(train.looks, train.labels, judged.looks, judged.labels)
    remarks = []
    if near:
        one, other = next(iter(near.items()))
        remarks.append(
            f"{len(near):,} of {len(judged.places):,} images in {judged.below}/ are or nearly are training images, such as "
            f"{judged.place(one)} and {train.place(other)}: the accuracy without them stands beside the other."
        )
    remarks += unsearched(len(train.places), len(judged.places))
    for found in (train, *others.values()):
        remarks += found.remarks
    return Dataset(
        train=train.images(name, "train"),
        valid=others["valid"].images(name, "valid") if "valid" in others else None,
        test=others["test"].images(name, "test") if "test" in others else None,
        labels=None if classes is not None else train.classes,
        remarks=tuple(remarks),
        near_duplicates=frozenset(near),
    )


def unsearched(one: int, other: int) -> list[str]:
    """A remark if there are too many images to compare each of one number with each of another."""
    if one * other <= MOST_COMPARED**2:
        return []
    return [f"of so many images only exact copies were looked for, not nearly the same ones (at most {MOST_COMPARED:,} can be compared)."]
