"""MNIST from its four IDX files, fetched through torchvision when they are missing (LeCun, Cortes and Burges 1998)."""

from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from sightline.console import messages
from sightline.errors import DataError
from sightline_training.datasets.dataset import Dataset, hold_out
from sightline_training.datasets.fetch import fetch_from_mirrors, why_not_fetched
from sightline_training.datasets.idx import read_idx
from sightline_training.datasets.image_set import image_set_of

SIDE: Final = 28
CLASSES: Final = 10
VALID_SHARE: Final = 12
"""One training image in so many is held out for validation: 5,000 of 60,000."""
FILES: Final = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def open_mnist(root: Path) -> Dataset:
    """55,000 training and 5,000 validation images from the training files, 10,000 test images; `root`/mnist holds the files.

    A file may be gzipped (`.gz`) or plain. Raises DataError if one is damaged, or missing and not to be had.
    """
    folder = root / "mnist"
    missing = [name for name in FILES if _present(folder, name) is None]
    if missing:
        _fetch(missing, folder)
    train_planes, train_labels = _read(folder, FILES[0], FILES[1])
    test_planes, test_labels = _read(folder, FILES[2], FILES[3])
    train, valid = hold_out(train_labels, len(train_labels) // VALID_SHARE)
    return Dataset(
        train=image_set_of("mnist", "train", train_planes[train], train_labels[train]),
        valid=image_set_of("mnist", "valid", train_planes[valid], train_labels[valid]),
        test=image_set_of("mnist", "test", test_planes, test_labels),
    )


def _present(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / f"{name}.gz", folder / name) if path.is_file()), None)


def _read(folder: Path, images: str, classes: str) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    images_path, labels_path = _present(folder, images) or folder / images, _present(folder, classes) or folder / classes
    planes, labels = read_idx(images_path, 3), read_idx(labels_path, 1)
    if planes.shape[1:] != (SIDE, SIDE):
        raise DataError(f"{images_path}: its images have {planes.shape[1]} x {planes.shape[2]} pixels; MNIST's have {SIDE} x {SIDE}.")
    if len(planes) != len(labels):
        raise DataError(f"{labels_path}: {len(labels):,} labels for the {len(planes):,} images in {images_path.name}.")
    if labels.max() >= CLASSES:
        at = int(np.argmax(labels >= CLASSES))
        raise DataError(f"{labels_path}: label {labels[at]} at position {at} is no digit (0 to {CLASSES - 1}).")
    return planes, labels.astype(np.int64)


def _fetch(missing: list[str], folder: Path) -> None:
    from torchvision.datasets import MNIST

    checksums = dict(MNIST.resources)
    messages().print(f"fetching MNIST into {folder} ({len(missing)} of {len(FILES)} files)")
    try:
        fetch_from_mirrors(folder, {f"{name}.gz": checksums[f"{name}.gz"] for name in missing}, MNIST.mirrors)
    except (OSError, RuntimeError) as error:
        wanted = f"{', '.join(f'{name}.gz' for name in FILES[:-1])} and {FILES[-1]}.gz"
        raise DataError(
            f"MNIST is not in {folder} and could not be fetched ({why_not_fetched(error)}). Put {wanted} into {folder}, "
            "or train on scikit-learn's bundled digits.",
            settings=("dataset",),
        ) from None
