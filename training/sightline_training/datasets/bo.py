"""Bo, the dog of a former president, against other cats and dogs: very few images, and not balanced (NVIDIA's course)."""

from pathlib import Path
from typing import Final

from sightline.errors import DataError
from sightline_training.datasets.dataset import Dataset
from sightline_training.datasets.split_folders import open_split_folders

LABELS: Final = ("bo", "not_bo")


def open_bo(root: Path) -> Dataset:
    """137 training and 26 validation images; `root`/doggy_door/presidential_doggy_door/{train,valid}/{bo,not_bo} holds them.

    There are no test images: the validation images are what is reported. Raises DataError if a folder is missing or empty.
    """
    folder = root / "doggy_door" / "presidential_doggy_door"
    if not all((folder / split).is_dir() for split in ("train", "valid")):
        raise DataError(
            f"the images of Bo are not in {folder}, and cannot be fetched. Put the course's folders train/ and valid/ there, "
            "each with the images in bo/ and not_bo/."
        )
    return open_split_folders("bo", folder, {"train": "train", "valid": "valid"}, LABELS)
