"""Distortions of training batches, drawn anew at every step, after `reformat`. Nothing validated, tested or served passes here."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True, kw_only=True)
class Warp:
    """A random affine map and a random elastic deformation of each image, in one bilinear resampling.

    The elastic part follows Simard, Steinkraus and Platt 2003 ("Best practices for convolutional neural networks applied to
    visual document analysis"): a smooth random displacement field. Here it is a Gaussian mixture over a coarse grid of knots,
    which costs two small matrix products instead of a convolution. What comes from outside the image is black.
    """

    rotation_deg: float
    """Uniform in ±, in degrees."""
    shift: float
    """Uniform in ±, as a fraction of the side, both ways independently."""
    scale: float
    """Each axis is scaled by exp(uniform in ±)."""
    shear_deg: float
    """Uniform in ±, in degrees, along the rows."""
    elastic_px: float
    """Standard deviation of the elastic displacement in pixels."""
    elastic_knots: int
    """Knots along each side of the displacement grid: fewer are smoother."""

    def __call__(self, pixels: Tensor) -> Tensor:
        """Warp pixels [N, H, W, C] on the 0..255 scale; gives float32 of that shape and scale. Draws from torch's global generator."""
        planes = pixels.permute(0, 3, 1, 2).to(torch.float32)
        count, _, height, width = planes.shape
        grid = functional.affine_grid(self._affine(count, pixels.device), [count, 1, height, width], align_corners=False)
        grid = grid + self._elastic(count, height, width, pixels.device)
        warped = functional.grid_sample(planes, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        return warped.permute(0, 2, 3, 1)

    def _affine(self, count: int, device: torch.device) -> Tensor:
        """Matrices [N, 2, 3] from output to input, in grid_sample's coordinates (-1..1)."""
        draws = torch.rand(6, count, device=device) * 2 - 1
        angle, shear = draws[0] * math.radians(self.rotation_deg), torch.tan(draws[1] * math.radians(self.shear_deg))
        wide, high = torch.exp(draws[2] * self.scale), torch.exp(draws[3] * self.scale)
        cos, sin = torch.cos(angle), torch.sin(angle)
        first = torch.stack([cos * wide, (cos * shear - sin) * high, draws[4] * 2 * self.shift], dim=1)
        second = torch.stack([sin * wide, (sin * shear + cos) * high, draws[5] * 2 * self.shift], dim=1)
        return torch.stack([first, second], dim=1)

    def _elastic(self, count: int, height: int, width: int, device: torch.device) -> Tensor:
        """Displacements [N, H, W, 2] (x, y), in grid_sample's coordinates."""
        knots = torch.randn(count, 2, self.elastic_knots, self.elastic_knots, device=device)
        field = _mixture(height, self.elastic_knots, device) @ knots @ _mixture(width, self.elastic_knots, device).T
        one_pixel = torch.tensor([2 / width, 2 / height], device=device)
        return field.permute(0, 2, 3, 1) * self.elastic_px * one_pixel


def _mixture(side: int, knots: int, device: torch.device) -> Tensor:
    """Weights [side, knots] of a Gaussian as wide as the knots' distance, each row of unit length so that the variance stays 1."""
    places = (torch.arange(side, device=device) + 0.5) / side
    centres = (torch.arange(knots, device=device) + 0.5) / knots
    weights = torch.exp(-0.5 * ((places[:, None] - centres[None, :]) * knots) ** 2)
    return functional.normalize(weights, dim=1)
