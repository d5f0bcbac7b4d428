"""Feeds the loop from memory: uint8 pixels, one indexing operation a batch, an order that seed and epoch alone decide."""

import hashlib
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

Batch = tuple[Tensor, Tensor]
"""The inputs of the part that learns, and class indices int64 [N]: pixels uint8 [N, H, W, C], or features float32 [N, views, F]."""


class Memory(Dataset[Batch]):
    """Pixels (or features) and labels in memory; an index is a whole batch of indices."""

    def __init__(self, inputs: npt.NDArray[np.uint8] | npt.NDArray[np.float32], labels: npt.NDArray[np.int64]) -> None:
        self.inputs, self.labels = torch.from_numpy(inputs), torch.from_numpy(labels)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)

    def __getitem__(self, indices: Tensor) -> Batch:
        """Return the batch of those images."""
        return self.inputs[indices], self.labels[indices]


class Shuffled(Sampler[Tensor]):
    """Batches of indices, near-equal in size; epoch e of one seed has the same order in every process, so that a resumed run repeats it."""

    def __init__(self, count: int, batch_size: int, seed: str, epoch: int) -> None:
        self.count, self.steps, self.seed, self.epoch = count, -(-count // batch_size), seed, epoch

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch. Lightning calls this before each, but after it has begun to fetch the first one: hence `epoch` above."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Return the steps an epoch."""
        return self.steps

    def __iter__(self) -> Iterator[Tensor]:
        """Iterate over the batches of one epoch."""
        order = torch.randperm(self.count, generator=torch.Generator().manual_seed(seed_of(self.seed, self.epoch, "order")))
        return iter(order.tensor_split(self.steps))


def train_batches(memory: Memory, batch_size: int, seed: str, epoch: int = 0) -> DataLoader[Batch]:
    """Return shuffled batches for training that begins, or goes on, with `epoch` (from 0)."""
    return _loader(memory, Shuffled(len(memory), batch_size, seed, epoch))


def watched_batches(memory: Memory, batch_size: int) -> DataLoader[Batch]:
    """Return batches in order; the last one may be short."""
    return _loader(memory, _in_order(len(memory), batch_size))


def _loader(memory: Memory, batches: Sampler[Tensor] | list[Tensor]) -> DataLoader[Batch]:
    # Each pass over a loader draws a number that only worker processes need; from the global generator, that number would shift
    # dropout and augmentation, and a resumed run begins its passes at another moment than an uninterrupted one.
    return DataLoader(memory, batch_size=None, sampler=batches, generator=torch.Generator())


def _in_order(count: int, batch_size: int) -> list[Tensor]:
    return [torch.arange(at, min(at + batch_size, count)) for at in range(0, count, batch_size)]


def seed_of(*parts: object) -> int:
    """Return a 63-bit seed for one purpose: sha256 of the parts, so that neighbouring seeds and epochs share nothing."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "big") >> 1
