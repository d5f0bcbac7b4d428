"""Where images come from: datasets by name, and the data folder in which they are looked for."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

from sightline_training.datasets.asl import open_asl
from sightline_training.datasets.bo import open_bo
from sightline_training.datasets.cifar10 import open_cifar10
from sightline_training.datasets.dataset import Dataset
from sightline_training.datasets.digits import open_digits
from sightline_training.datasets.doggy_door import open_doggy_door
from sightline_training.datasets.folder import open_folder
from sightline_training.datasets.fruits import open_fruits
from sightline_training.datasets.imagenet import open_imagenet
from sightline_training.datasets.mnist import open_mnist

DATASETS: Final[Mapping[str, Callable[[Path], Dataset]]] = MappingProxyType(
    {
        "mnist": open_mnist,
        "digits": open_digits,
        "asl": open_asl,
        "cifar10": open_cifar10,
        "imagenet": open_imagenet,
        "doggy_door": open_doggy_door,
        "bo": open_bo,
        "fruits": open_fruits,
        "folder": open_folder,
    }
)
"""Name → what opens it in a data folder. A new dataset is one new file and its entry here."""

__all__ = ["DATASETS", "Dataset", "data_root", "open_dataset"]


def open_dataset(name: str, data: Path | None = None) -> Dataset:
    """The dataset `name` in the data folder `data` (see `data_root`), fetched first if it is missing there.

    Raises DataError if it is missing and cannot be fetched, or is damaged.
    """
    return DATASETS[name](data_root(data))


def data_root(data: Path | None) -> Path:
    """The data folder: `data`, else the one that the environment variable SIGHTLINE_DATA names, else `data/`."""
    return data if data is not None else Path(os.environ.get("SIGHTLINE_DATA") or "data")
