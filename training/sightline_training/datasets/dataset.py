"""A dataset is up to three splits; validation images are split off here, the same ones for every seed of training."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sightline_training.datasets.image_set import ImageSet, Split

SPLIT_SEED = 20_000
"""Of the shuffle that holds images out. Fixed: a run's seed must not decide what it is judged on."""


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """`train` is learned from, `valid` chooses the epoch to keep, `test` is looked at once, at the end. A split may be missing."""

    train: ImageSet | None = None
    """None if there is nothing to learn from."""
    valid: ImageSet | None = None
    """None if no honest one can be had."""
    test: ImageSet | None = None
    """None if the source has only a validation set: then that is what is reported, and called so."""
    labels: tuple[str, ...] | None = None
    """Names of the classes, if they come with the images; None if the recipe's card knows them."""
    remarks: tuple[str, ...] = ()
    """What a reader of the report should know, in sentences: files that were left out, how a split was made."""
    near_duplicates: frozenset[int] = frozenset()
    """Indices into the judged split of images that nearly are one of `train`: other crops of one photo, say."""

    @property
    def name(self) -> str:
        """The name that its splits share."""
        return self.judged.name

    @property
    def splits(self) -> tuple[ImageSet, ...]:
        """Those that are there, of training, validation, test."""
        return tuple(images for images in (self.train, self.valid, self.test) if images is not None)

    @property
    def judged(self) -> ImageSet:
        """What the reported accuracy is counted on: the test images, else the validation images."""
        judged = self.test or self.valid
        if judged is None:
            raise ValueError("a dataset needs validation or test images")
        return judged

    @property
    def choosing(self) -> ImageSet | None:
        """What chooses the epoch to keep: the validation images, unless they are what is reported."""
        return self.valid if self.test is not None else None

    def __getitem__(self, split: Split) -> ImageSet:
        """A split by name. Raises KeyError if it is not there."""
        return {images.split: images for images in self.splits}[split]


def hold_out(labels: npt.NDArray[np.int64], count: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Indices (kept, held out), each ascending: `count` images held out at random, every class in its proportion.

    Classes share `count` by largest remainders.
    """
    classes, sizes = np.unique(labels, return_counts=True)
    exact = sizes * (count / len(labels))
    shares = np.floor(exact).astype(int)
    shares[np.argsort(shares - exact, kind="stable")[: count - shares.sum()]] += 1
    # The old generator's stream is frozen for ever; the new ones' may change with numpy's version.
    shuffle = np.random.RandomState(SPLIT_SEED)
    drawn = [shuffle.permutation(np.flatnonzero(labels == class_index))[:share] for class_index, share in zip(classes, shares, strict=True)]
    held = np.sort(np.concatenate(drawn))
    return np.setdiff1d(np.arange(len(labels)), held), held
