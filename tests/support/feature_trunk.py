"""A trunk that counts what it computes, and an augmentation, for the tests of the feature cache and for the processes that they start."""

import torch
from torch import Tensor, nn

BATCH = 10
IMAGES = 95


class Trunk(nn.Module):
    """A linear map of the pixels that counts how many images it computed features of."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.map = nn.Linear(48, 5)
        self.computed = 0

    def forward(self, pixels: Tensor) -> Tensor:
        self.computed += len(pixels)
        features: Tensor = self.map(pixels.float().flatten(1))
        return features


def shaken(pixels: Tensor) -> Tensor:
    """An augmentation whose draws depend on how many images are augmented together."""
    return pixels.float() * torch.rand(len(pixels), 1, 1, 1)
