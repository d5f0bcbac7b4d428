"""ImageNet's validation images (Russakovsky et al. 2015) where somebody has them; otherwise three photos of which nothing is counted."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
from pydantic import TypeAdapter, ValidationError

from sightline.errors import DataError
from sightline.host.files import read_bytes, reason_of
from sightline.image import name_of
from sightline_training.datasets.class_folders import read_class_folders
from sightline_training.datasets.dataset import Dataset
from sightline_training.datasets.doggy_door import PHOTOS, photos
from sightline_training.datasets.image_set import UNKNOWN
from sightline_training.datasets.imagenet_labels import LABELS
from sightline_training.datasets.listing import folders_in

INDEX: Final = "imagenet_class_index.json"
MAX_INDEX_BYTES: Final = 1024 * 1024
"""Keras's has 35,000."""
INDEX_JSON: Final = TypeAdapter(dict[str, tuple[str, str]])
NUMBER: Final = re.compile(r"n\d{8}")
"""Of a synset of WordNet."""


def open_imagenet(root: Path) -> Dataset:
    """Return the images of `root`/imagenet/val/<class>/** as test images; nothing is learned, and nothing chosen.

    A class folder is called by its WordNet number (n01440764) or by torchvision's name of the class (tench), with blanks or
    underscores. If not all 1,000 numbers are there, imagenet_class_index.json (Keras publishes it) must lie in `root`/imagenet or
    `root`/weights to tell which class is which. Without imagenet/val the test images are the photos of `doggy_door`, of class
    UNKNOWN. Raises DataError if a folder fits no class, or if there are neither these images nor those.
    """
    folder = root / "imagenet" / "val"
    if not folder.is_dir():
        remark = (
            f"no accuracy can be given: the data folder holds no imagenet/val, and the {len(PHOTOS)} photos shown instead are not counted."
        )
        return Dataset(test=photos(root, "imagenet", [UNKNOWN] * len(PHOTOS)), remarks=(remark,))
    index = _index(root, folders_in(folder))
    contents = read_class_folders(folder, below="val")
    classes = np.array([index[name] for name in contents.classes], np.int64)
    judged = replace(contents, labels=classes[contents.labels])
    return Dataset(test=judged.images("imagenet", "test"), remarks=contents.remarks)


def _index(root: Path, names: Sequence[str]) -> dict[str, int]:
    """Return name of a class folder → class."""
    # torchvision's weights number the classes in the order of their WordNet numbers.
    numbered = sorted(name for name in names if NUMBER.fullmatch(name))
    known = {label: at for at, label in enumerate(LABELS)}
    if len(numbered) == len(LABELS):
        known |= {number: at for at, number in enumerate(numbered)}
    elif numbered:
        known |= _published(root)
    index = {}
    for name in names:
        at = known.get(name, known.get(name.replace("_", " ")))
        if at is None:
            raise DataError(f"{name_of(root / 'imagenet' / 'val' / name)}: no class of ImageNet is called so. Rename or remove the folder.")
        index[name] = at
    return index


def _published(root: Path) -> dict[str, int]:
    """Return WordNet number → class, from Keras's file {"0": ["n01440764", "tench"], ...}."""
    places = [root / "imagenet" / INDEX, root / "weights" / INDEX]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        raise DataError(
            f"{places[0].parent / 'val'}: of ImageNet's 1,000 folders some are missing. To tell which these are, put {INDEX} beside val/."
        )
    try:
        index = INDEX_JSON.validate_json(read_bytes(path, MAX_INDEX_BYTES))
        return {index[str(number)][0]: number for number in range(len(LABELS))}
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {reason_of(error)}.") from None
    except (LookupError, ValidationError):
        raise DataError(f'{path}: expected 1,000 entries such as "0": ["n01440764", "tench"]. Put a good copy in its place.') from None
