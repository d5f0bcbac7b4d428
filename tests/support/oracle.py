"""A second reading of docs/preprocessing.md in other terms than `sightline.reformat`: fractions and matrices instead of Pillow's calls.

It shares no code with the reference and no library but numpy: resampling is a pair of weight matrices in 22-bit fixed point (as
Pillow's C code documents, which makes it exact), alpha and luma are integer formulas, EXIF is rotation of arrays. Only for lossy
files does it ask a decoder: torchvision's, another binding than Pillow's.
"""

from collections.abc import Callable
from fractions import Fraction
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from sightline.preprocess import Preprocess, PreprocessV1, PreprocessV2
from support.document_oracle import boxed, strokes_of

Pixels = npt.NDArray[np.uint8]

INVERSE: Final = {1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}
"""Which orientation undoes which."""


def reformat(truth: Pixels, orientation: int, spec: Preprocess) -> Pixels:
    """What `spec` makes of stored RGBA pixels (H, W, 4): uint8 (height, width, channels)."""
    return BY_VERSION[spec.version](truth, orientation, spec)


def reformat_v1(truth: Pixels, orientation: int, spec: PreprocessV1) -> Pixels:
    """Version 1 of the specification."""
    under = np.array(spec.background * (3 // spec.channels), np.int64)
    image = over(truth, under)
    if spec.mode == "L":
        image = luma(image)[..., None]
    if spec.exif == "apply":
        image = turned(image, orientation)
    high, wide = spec.size
    if spec.fit == "stretch":
        return polarised(resampled(image, (high, wide), spec.resample), spec)
    if spec.fit == "crop":
        return polarised(_cropped(image, spec), spec)
    return _padded(image, spec)


def reformat_v2(truth: Pixels, orientation: int, spec: PreprocessV2) -> Pixels:
    """Version 2 of the specification. What `decode` makes of the file is `truth`'s matter: see `stored`."""
    if spec.alpha_background == "auto":
        visible = [(int(alpha), int(grey)) for alpha, grey in zip(truth[..., 3].ravel(), luma(truth[..., :3]).ravel(), strict=True)]
        dark = Fraction(sum(alpha * grey for alpha, grey in visible), max(1, sum(alpha for alpha, _ in visible))) <= Fraction(255, 2)
        under = [255 if dark else 0] * 3
    else:
        under = list(spec.alpha_background * (3 // spec.channels))
    opaque = np.dstack([over(truth, np.array(under, np.int64)), np.full(truth.shape[:2], 255, np.uint8)])
    if spec.levels == "as-is":
        return reformat_v1(opaque, orientation, spec)  # type: ignore[arg-type]  # it has all of version 1's fields
    upright = turned(opaque, orientation) if spec.exif == "apply" else opaque
    grey = resampled(luma(upright[..., :3])[..., None], measured(upright.shape[:2], spec), "box")[..., 0]
    ink, dark_ink = strokes_of(grey, resampled)
    plane = boxed(ink, spec.size, spec.resample, resampled) if spec.frame == "ink-box" else ink
    if dark_ink and spec.polarity == "as-is":
        plane = np.subtract(255, plane, dtype=np.uint8)
    if spec.frame == "ink-box":
        return np.repeat(plane[..., None], spec.channels, axis=2)
    rgba = np.dstack([plane, plane, plane, np.full(plane.shape, 255, np.uint8)])
    return reformat_v1(rgba, 1, spec.with_fields(polarity="as-is"))  # type: ignore[arg-type]


BY_VERSION: Final[dict[int, Callable[[Pixels, int, Any], Pixels]]] = {1: reformat_v1, 2: reformat_v2}
"""The oracle of each version in `sightline.preprocess.VERSIONS`."""


def stored(content: bytes, spec: Preprocess) -> Pixels:
    """Decode a lossy file to opaque RGBA with another binding than Pillow's, as small as `spec` allows and not turned upright."""
    import torch
    from torchvision.io import ImageReadMode, decode_jpeg, decode_webp

    encoded = torch.frombuffer(bytearray(content), dtype=torch.uint8)
    rgb = decode_webp(encoded, ImageReadMode.RGB) if content[:4] == b"RIFF" else decode_jpeg(encoded, ImageReadMode.RGB)
    planes = rgb.permute(1, 2, 0).numpy()
    share = divisor(planes.shape[:2], spec) if content[:2] == b"\xff\xd8" else 1
    if share > 1:
        import simplejpeg

        height, width = (-(-side // share) for side in planes.shape[:2])
        planes = simplejpeg.decode_jpeg(content, "RGB", min_height=height, min_width=width)
        assert planes.shape == (height, width, 3)
    return np.dstack([planes, np.full(planes.shape[:2], 255, np.uint8)])


def divisor(shape: tuple[int, ...], spec: Preprocess) -> int:
    """By what `decode` divides a JPEG of (height, width): it must stay twice as large as needed, lying and standing."""
    if not isinstance(spec, PreprocessV2) or spec.decode == "full":
        return 1
    for share in (8, 4, 2):
        fits = True
        for sides in (shape, shape[::-1]):
            needed = measured(sides, spec) if spec.levels == "document" else scaled_to(sides, spec)
            fits = fits and all(Fraction(side + share - 1, share) // 1 >= 2 * least for side, least in zip(sides, needed, strict=True))
        if fits:
            return share
    return 1


def measured(shape: tuple[int, ...], spec: Preprocess) -> tuple[int, int]:
    """The size at which strokes are looked for."""
    scale = min(Fraction(1), Fraction(max(512, 2 * max(spec.size)), max(shape)))
    high, wide = (max(1, int((side * scale + Fraction(1, 2)) // 1)) for side in shape)
    return high, wide


def scaled_to(shape: tuple[int, ...], spec: Preprocess) -> tuple[int, int]:
    """The size to which `fit` scales (height, width)."""
    height, width = shape
    high, wide = spec.size
    if spec.fit == "stretch":
        return high, wide
    if spec.fit == "pad":
        scale = min(Fraction(high, height), Fraction(wide, width))
        return max(1, round(height * scale)), max(1, round(width * scale))
    part = Fraction(str(spec.crop_fraction))
    cover = round(high / part), round(wide / part)
    # The side that has to grow most sets the scale; the other follows and is cut down to whole pixels.
    if Fraction(cover[0], height) >= Fraction(cover[1], width):
        return cover[0], width * cover[0] // height
    return height * cover[1] // width, cover[1]


def turned(image: npt.NDArray[Any], orientation: int) -> npt.NDArray[Any]:
    """Upright, from how an image of that EXIF orientation is stored: row 0 and column 0 go where tag 274 says."""
    if orientation in (5, 6, 7, 8):
        image = image.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    return image


def over(rgba: Pixels, under: npt.NDArray[np.int64]) -> Pixels:
    """Porter and Duff's `over` upon an opaque colour, rounded half up."""
    colour, alpha = rgba[..., :3].astype(np.int64), rgba[..., 3:].astype(np.int64)
    return ((2 * (colour * alpha + under * (255 - alpha)) + 255) // 510).astype(np.uint8)


def luma(rgb: Pixels) -> Pixels:
    """ITU-R 601-2 in 16-bit fixed point: 0.299 R + 0.587 G + 0.114 B."""
    return np.asarray((rgb.astype(np.int64) @ np.array([19595, 38470, 7471]) + 0x8000) >> 16, dtype=np.uint8)


def polarised(image: Pixels, spec: Preprocess) -> Pixels:
    """Inverted, if `light-on-dark` is asked for and the median of all samples on the edge is above 127."""
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    edge = sorted(image[(y == 0) | (x == 0) | (y == y.max()) | (x == x.max())].ravel().tolist())
    twice_median = edge[len(edge) // 2] + edge[(len(edge) - 1) // 2]
    return np.subtract(255, image, dtype=np.uint8) if spec.polarity == "light-on-dark" and twice_median > 254 else image


def _cropped(image: Pixels, spec: Preprocess) -> Pixels:
    high, wide = spec.size
    scaled = scaled_to(image.shape[:2], spec)
    corner = round(Fraction(scaled[0] - high, 2)), round(Fraction(scaled[1] - wide, 2))
    return resampled(image, scaled, spec.resample, corner, (high, wide))


def _padded(image: Pixels, spec: Preprocess) -> Pixels:
    high, wide = spec.size
    scaled = scaled_to(image.shape[:2], spec)
    inside = polarised(resampled(image, scaled, spec.resample), spec)
    above, left = (high - scaled[0]) // 2, (wide - scaled[1]) // 2
    rows, columns = np.arange(high) - above, np.arange(wide) - left
    within = ((rows >= 0) & (rows < scaled[0]))[:, None] & ((columns >= 0) & (columns < scaled[1]))
    taken = inside[np.clip(rows, 0, scaled[0] - 1)][:, np.clip(columns, 0, scaled[1] - 1)]
    return np.where(within[..., None], taken, np.array(spec.background, np.uint8))


def resampled(
    image: Pixels,
    size: tuple[int, int],
    method: str,
    corner: tuple[int, int] = (0, 0),
    shape: tuple[int, int] | None = None,
) -> Pixels:
    """The window `shape` at `corner` of `image` (H, W, C) scaled to `size`; width first, rounded to 8 bits between."""
    shape = shape or size
    if method == "nearest":
        rows, columns = (_nearest(image.shape[axis], size[axis])[corner[axis] :][: shape[axis]] for axis in (0, 1))
        return np.asarray(image[rows][:, columns], dtype=np.uint8)
    across = _matrix(image.shape[1], size[1], method, corner[1], shape[1])
    down = _matrix(image.shape[0], size[0], method, corner[0], shape[0])
    return _product(down, _product(across, image.swapaxes(0, 1)).swapaxes(0, 1))


def _product(weights: npt.NDArray[np.int64], image: Pixels) -> Pixels:
    # Whole numbers below 2**53: doubles add them exactly, and faster than numpy's integers.
    summed = np.tensordot(weights.astype(np.float64), image.astype(np.float64), axes=1).astype(np.int64)
    return np.clip((summed + (1 << 21)) >> 22, 0, 255).astype(np.uint8)


def _matrix(length: int, scaled: int, method: str, first: int, count: int) -> npt.NDArray[np.int64]:
    """Weights (count, length) in units of 2**-22: the filter, stretched by the scale when it shrinks, sampled at pixel centres."""
    scale = length / scaled
    centres = ((first + np.arange(count) + 0.5) * scale)[:, None]
    # In this order of operations a pixel on the very edge of a box falls to the side where Pillow's doubles put it.
    offsets = (np.arange(length) - centres + 0.5) * (1.0 / max(1.0, scale))
    reach = _RADIUS[method] * max(1.0, scale)
    within = (np.arange(length) >= np.floor(centres - reach + 0.5)) & (np.arange(length) < np.floor(centres + reach + 0.5))
    weights = _FILTERS[method](offsets) * within
    weights /= weights.sum(axis=1, keepdims=True)
    return np.asarray(np.sign(weights) * np.floor(np.abs(weights) * (1 << 22) + 0.5), dtype=np.int64)


def _nearest(length: int, scaled: int) -> npt.NDArray[np.int64]:
    """The pixel under each centre. A centre exactly between two falls where Pillow's repeated addition of the scale puts it."""
    scale = length / scaled
    return np.asarray(np.floor(np.add.accumulate([0.5 * scale] + [scale] * (scaled - 1))), dtype=np.int64)


def _box(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return ((x > -0.5) & (x <= 0.5)).astype(np.float64)


def _triangle(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.maximum(0.0, 1.0 - np.abs(x))


def _cubic(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    x = np.abs(x)
    near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def _lanczos(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.where((x >= -3) & (x < 3), np.sinc(x) * np.sinc(x / 3), 0.0)


_FILTERS: Final = {"box": _box, "bilinear": _triangle, "bicubic": _cubic, "lanczos": _lanczos}
_RADIUS: Final = {"box": 0.5, "bilinear": 1.0, "bicubic": 2.0, "lanczos": 3.0}
