"""scikit-learn's bundled handwritten digits: 1,797 real images of 8 × 8 pixels, no download (Alpaydin and Kaynak 1998, UCI)."""

from pathlib import Path

import numpy as np

from sightline_training.datasets.dataset import Dataset, hold_out
from sightline_training.datasets.image_set import image_set_of


def open_digits(root: Path) -> Dataset:  # noqa: ARG001 - they are in the package, not in the data folder
    """1,257 training, 180 validation and 360 test images: grey, light on dark, 0..16 stretched to 0..255."""
    from sklearn.datasets import load_digits  # a second that whoever has MNIST need not wait

    bundle = load_digits()
    planes = np.round(bundle.images * (255 / 16)).astype(np.uint8)
    labels = np.asarray(bundle.target, np.int64)
    rest, test = hold_out(labels, 360)
    train, valid = (rest[part] for part in hold_out(labels[rest], 180))
    return Dataset(
        train=image_set_of("digits", "train", planes[train], labels[train]),
        valid=image_set_of("digits", "valid", planes[valid], labels[valid]),
        test=image_set_of("digits", "test", planes[test], labels[test]),
    )
