"""Says of the pixels that a network gets what a sure label would hide: that there is nothing on them.

A network answers to every image, and a softmax is often surest where nothing is seen: a classifier of digits calls an empty sheet an 8.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from sightline.preprocess import Preprocess

NOTHING: Final = "nothing to read here"
"""How the remark of an image of one colour begins, and what `sightline classify` shows in place of its label."""

FLAT: Final = f"{NOTHING}: after reformatting the image is of one colour, so that the label is the model's answer to an empty image"

FLAT_LEVELS: Final = 8
"""The most levels, of 256, by which the samples of a channel differ in an image of one colour. A camera's noise in the dark and JPEG's
on an even surface stay within; of all images of MNIST, Sign Language MNIST, CIFAR-10, the fruits and Bo, reformatted for their recipes
(166,205 images), the one that comes nearest spans 58."""


def remark_of(pixels: npt.NDArray[np.uint8], spec: Preprocess | None = None) -> str:
    """Return a sentence if reformatted pixels, uint8 (H, W, C), are of one colour; "" if there is nothing to remark.

    With the specification by which they were made, its padding does not count: an even photo between two bars is an even photo. An image
    of a single pixel is of one colour always, and gets no remark.
    """
    if pixels.shape[0] * pixels.shape[1] < 2:
        return ""
    if _flat(pixels):
        return FLAT
    if spec is not None and spec.pads:
        high, wide = pixels.shape[:2]
        # Between bars at the sides the middle column is even, between bars above and below the middle row: most images have neither.
        if (_flat(pixels[high // 2][None]) or _flat(pixels[:, wide // 2][None])) and _flat(_without_padding(pixels, spec.background)):
            return FLAT
    return ""


def remarks_of(pixels: npt.NDArray[np.uint8], spec: Preprocess) -> list[str]:
    """Return what `remark_of` says of each image of uint8 (N, H, W, C); a few pixels of each acquit nearly all, together."""
    count, high, wide, channels = pixels.shape
    step = max(1, high * wide // 64)
    suspect = _flat_ones(pixels.reshape(count, high * wide, channels)[:, ::step])
    if spec.pads:
        suspect |= _flat_ones(pixels[:, high // 2]) | _flat_ones(pixels[:, :, wide // 2])
    remarks = [""] * count
    for index in np.flatnonzero(suspect):
        remarks[index] = remark_of(pixels[index], spec)
    return remarks


def _flat_ones(samples: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Whether the samples [N, n, C] of each image are of one colour."""
    return np.asarray((samples.max(axis=1) - samples.min(axis=1)).max(axis=1) <= FLAT_LEVELS)


def _flat(pixels: npt.NDArray[np.uint8]) -> bool:
    samples = pixels.reshape(-1, pixels.shape[-1])
    # A few pixels acquit nearly every image.
    some = samples[:: max(1, len(samples) // 64)]
    return _span(some) <= FLAT_LEVELS and _span(samples) <= FLAT_LEVELS


def _span(samples: npt.NDArray[np.uint8]) -> int:
    """Return the most by which samples [N, C] of a channel differ."""
    return int((samples.max(axis=0) - samples.min(axis=0)).max())


def _without_padding(pixels: npt.NDArray[np.uint8], background: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """Return what lies between two bars of the background, above and below or at the sides; the pixels as they are if there are none.

    The bars are known by their place too: of an odd number of free rows or columns the larger half comes after the image.
    """
    ground = (pixels == np.array(background, np.uint8)).all(axis=2)
    rows, columns = (np.flatnonzero(~ground.all(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return pixels
    (top, below), (left, right) = (
        (int(filled[0]), length - 1 - int(filled[-1])) for filled, length in zip((rows, columns), ground.shape, strict=True)
    )
    if left == right == 0 and below - top in (0, 1):
        return pixels[top : len(pixels) - below]
    if top == below == 0 and right - left in (0, 1):
        return pixels[:, left : pixels.shape[1] - right]
    return pixels
