"""A dataset is three splits; the validation pictures are split off here, the same ones for every seed of training."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sightline_training.pictures import PictureSet, Split

SPLIT_SEED = 20_000
"""Of the shuffle that holds pictures out. Fixed: a run's seed must not decide what it is judged on."""


@dataclass(frozen=True)
class Dataset:
    """`train` is learned from, `valid` chooses the epoch to keep, `test` is looked at once, at the end."""

    train: PictureSet
    valid: PictureSet
    test: PictureSet

    @property
    def name(self) -> str:
        """The name that its splits share."""
        return self.train.name

    @property
    def splits(self) -> tuple[PictureSet, PictureSet, PictureSet]:
        """Training, validation, test."""
        return (self.train, self.valid, self.test)

    def __getitem__(self, split: Split) -> PictureSet:
        """A split by name."""
        return {"train": self.train, "valid": self.valid, "test": self.test}[split]


def hold_out(labels: npt.NDArray[np.int64], count: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Indices (kept, held out), each ascending: `count` pictures held out at random, every class in its proportion.

    Classes share `count` by largest remainders.
    """
    classes, sizes = np.unique(labels, return_counts=True)
    exact = sizes * (count / len(labels))
    shares = np.floor(exact).astype(int)
    shares[np.argsort(shares - exact, kind="stable")[: count - shares.sum()]] += 1
    # The old generator's stream is frozen for ever; the new ones' may change with numpy's version.
    shuffle = np.random.RandomState(SPLIT_SEED)
    drawn = [shuffle.permutation(np.flatnonzero(labels == each))[:share] for each, share in zip(classes, shares, strict=True)]
    held = np.sort(np.concatenate(drawn))
    return np.setdiff1d(np.arange(len(labels)), held), held
