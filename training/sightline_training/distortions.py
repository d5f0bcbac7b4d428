"""The augmentations of the courses, through kornia: each picture of a batch draws its own. Like `augmentation`, in training only."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor, nn

Augmentation = Callable[[Tensor], Tensor]
"""Pixels [N, H, W, C] on the 0..255 scale, uint8 or float32 → float32 of that shape and scale. Draws from torch's global generator."""


@dataclass(frozen=True)
class Distortion:
    """One of kornia's augmentations (Riba et al. 2020, arXiv:1910.02190), by the name of its class and its settings."""

    name: str
    """What the picture of the augmentations calls it."""
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
class InTurn:
    """Several augmentations, one after the other."""

    steps: tuple[Distortion, ...]

    def __call__(self, pixels: Tensor) -> Tensor:
        """Apply them all, as an `Augmentation`."""
        for step in self.steps:
            pixels = step(pixels)
        return pixels
