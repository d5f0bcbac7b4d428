"""Three photos of who may stand before a dog's door: a dog, a bear and a cat, with the answer that the door needs."""

from functools import partial
from pathlib import Path
from typing import Final

import numpy as np

from sightline.errors import DataError
from sightline_training.datasets.dataset import Dataset
from sightline_training.datasets.encoded_images import EncodedImage, encoded_image_set, read_file
from sightline_training.datasets.image_set import ImageSet

LABELS: Final = ("cat", "dog", "other")
"""What the door asks, in the order of the answers."""
PHOTOS: Final = {"happy_dog.jpg": "dog", "brown_bear.jpg": "other", "sleepy_cat.jpg": "cat"}
"""File → right answer."""


def open_doggy_door(root: Path) -> Dataset:
    """The three photos as test images, in the order of PHOTOS; `root`/doggy_door/doggy_door_images holds them.

    Raises DataError, naming it, if one is missing.
    """
    return Dataset(test=photos(root, "doggy_door", [LABELS.index(answer) for answer in PHOTOS.values()]))


def photos(root: Path, name: str, labels: list[int]) -> ImageSet:
    """The three photos as test images of the dataset `name`, with these class indices."""
    folder = root / "doggy_door" / "doggy_door_images"
    missing = [photo for photo in PHOTOS if not (folder / photo).is_file()]
    if missing:
        raise DataError(
            f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not in {folder}, and cannot be fetched. Put "
            f"{', '.join(PHOTOS)} there: any three photos of a dog, a bear and a cat."
        )
    return encoded_image_set(
        name,
        "test",
        [EncodedImage(str(folder / photo), partial(read_file, folder / photo)) for photo in PHOTOS],
        np.array(labels, np.int64),
        places=tuple(f"doggy_door_images/{photo}" for photo in PHOTOS),
    )
