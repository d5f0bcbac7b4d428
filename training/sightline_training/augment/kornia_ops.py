"""The augmentations of the courses, through kornia: each image of a batch draws its own. Like `augmentation`, in training only."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

Augmentation = Callable[[Tensor], Tensor]
"""Pixels [N, H, W, C] on the 0..255 scale, uint8 or float32 → float32 of that shape and scale. Draws from torch's global generator."""


@dataclass(frozen=True)
class Distortion:
    """One of kornia's augmentations (Riba et al. 2020, arXiv:1910.02190), by the name of its class and its settings."""

    name: str
    """What the image of the augmentations calls it."""
    kind: str
    """A class of `kornia.augmentation`."""
    settings: tuple[tuple[str, object], ...]
    """Its keyword arguments."""

    def __call__(self, pixels: Tensor) -> Tensor:
        """Apply it as an `Augmentation`; what leaves the range 0..255 is cut off."""
        planes = pixels.permute(0, 3, 1, 2).float() / 255
        changed: Tensor = self._operation(planes)
        return changed.clamp(0, 1).permute(0, 2, 3, 1) * 255

    @cached_property
    def _operation(self) -> nn.Module:
        import kornia.augmentation  # six seconds that only training needs

        operation: nn.Module = getattr(kornia.augmentation, self.kind)(**dict(self.settings))
        return operation


def distortion(name: str, kind: str, **settings: object) -> Distortion:
    """A `Distortion`, its settings as keyword arguments."""
    return Distortion(name, kind, tuple(sorted(settings.items())))


@dataclass(frozen=True)
class Movement(Distortion):
    """A geometric one, by the matrix that kornia draws for each image. What comes from outside the image repeats its border.

    Small images lose their detail when they are resampled again and again: see `InTurn`.
    """

    def __call__(self, pixels: Tensor) -> Tensor:
        """Apply it alone, as an `Augmentation`."""
        return _moved(pixels, [self])

    def matrices(self, planes: Tensor) -> Tensor:
        """For each of `planes` [N, C, H, W] a new homography [N, 3, 3], from pixel coordinates (x, y, 1) before to those after."""
        operation: Any = self._operation
        drawn: Tensor = operation.generate_transformation_matrix(planes, operation.forward_parameters(planes.shape), operation.flags)
        return drawn


def movement(name: str, kind: str, **settings: object) -> Movement:
    """A `Movement`, its settings as keyword arguments; `kind` must keep the size of the image."""
    return Movement(name, kind, tuple(sorted(settings.items())))


@dataclass(frozen=True)
class InTurn:
    """Several augmentations, one after the other; neighbouring movements become one, in one bilinear resampling."""

    steps: tuple[Distortion, ...]

    def __call__(self, pixels: Tensor) -> Tensor:
        """Apply them all, as an `Augmentation`."""
        for _, neighbours in groupby(self.steps, key=lambda step: isinstance(step, Movement)):
            steps = list(neighbours)
            movements = [step for step in steps if isinstance(step, Movement)]
            if movements:
                pixels = _moved(pixels, movements)
            else:
                for step in steps:
                    pixels = step(pixels)
        return pixels


def _moved(pixels: Tensor, movements: Iterable[Movement]) -> Tensor:
    """Look up where each pixel came from: the inverse of the product of the movements' homographies."""
    planes = pixels.permute(0, 3, 1, 2).float()
    count, _, height, width = planes.shape
    moved = torch.eye(3, device=planes.device).expand(count, 3, 3)
    for movement in movements:
        moved = movement.matrices(planes) @ moved
    rows, columns = torch.meshgrid(torch.arange(height, device=planes.device), torch.arange(width, device=planes.device), indexing="ij")
    after = torch.stack([columns, rows, torch.ones_like(rows)]).float().reshape(3, -1)
    x, y, scale = (torch.linalg.inv(moved) @ after).unbind(dim=1)
    # Pixel 0 has its centre half a pixel inside the border, which is -1 for grid_sample.
    before = torch.stack([(2 * x / scale + 1) / width - 1, (2 * y / scale + 1) / height - 1], dim=2).reshape(count, height, width, 2)
    return functional.grid_sample(planes, before, mode="bilinear", padding_mode="border", align_corners=False).permute(0, 2, 3, 1)
