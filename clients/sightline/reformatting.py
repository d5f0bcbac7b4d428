"""The one reference of preprocessing: training, export, calibration, clients, batch jobs and benchmarks all call `reformat`.

NumPy and Pillow only. What the specification says in words (`sightline.preprocess`), this file says in code; the golden images in
the tests hold both to the same pixels.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from sightline.document import document
from sightline.errors import ImageError
from sightline.image import MAX_PIXELS, Admit, ImageInput, name_of, open_image
from sightline.ink_box import ink_box
from sightline.preprocess import Polarity, Preprocess, PreprocessV1, PreprocessV2, Resample

FILTERS: Final = {
    "nearest": Image.Resampling.NEAREST,
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}

MEASURED_SIDE: Final = 512
"""Pixels: `levels: document` looks at an image of at most that side, or of twice the result's. Ten letters side by side have 50 each."""

UPRIGHT: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What undoes each value of EXIF's orientation tag (Exif 2.32, tag 274)."""

SIDEWAYS: Final = frozenset({Image.Transpose.TRANSPOSE, Image.Transpose.ROTATE_270, Image.Transpose.TRANSVERSE, Image.Transpose.ROTATE_90})
"""These make rows of columns."""
BACKWARDS: Final = frozenset(
    {Image.Transpose.ROTATE_180, Image.Transpose.FLIP_TOP_BOTTOM, Image.Transpose.TRANSVERSE, Image.Transpose.ROTATE_90}
)
"""These make the first rows of the last rows or columns."""

STRIP_PIXELS: Final = 1 << 18
"""Of an image that is not ready as it was decoded; a megabyte."""


def reformat(image: ImageInput, spec: Preprocess, max_pixels: int = MAX_PIXELS, admit: Admit | None = None) -> npt.NDArray[np.uint8]:
    """Turn an image into the network's input: a uint8 array of shape (height, width, channels), as the version of `spec` defines it.

    The array is new, C-contiguous and writable; `image` is not changed. `admit` is told the number of pixels before they are decoded, and
    may wait (`sightline.image.open_image`). Raises ImageError, with the image's path, if the image cannot be read, has more than
    `max_pixels` pixels, or cannot take that shape.
    """
    decoded = decode(image, spec, max_pixels, admit)
    return reformat_decoded(decoded, spec, image)


def decode(image: ImageInput, spec: Preprocess, max_pixels: int = MAX_PIXELS, admit: Admit | None = None) -> Image.Image:
    """Do the first half of `reformat`: return the image decoded as `spec` asks for it, not yet upright. Raises ImageError."""
    reduce = partial(_divisor, spec=spec) if isinstance(spec, PreprocessV2) and spec.decode == "dct" else None
    return open_image(image, max_pixels, reduce, admit)


def reformat_decoded(decoded: Image.Image, spec: Preprocess, image: ImageInput) -> npt.NDArray[np.uint8]:
    """Do the second half of `reformat`, on what `decode` made of `image`. Raises ImageError, with the name of `image`."""
    try:
        return BY_VERSION[spec.version](decoded, spec)
    except ImageError as error:
        raise ImageError(f"{name_of(image)}: {error}", kind=error.kind) from None
    except MemoryError:
        raise ImageError(f"{name_of(image)}: not enough memory to scale {decoded.width} x {decoded.height} pixels") from None


def reformat_v1(decoded: Image.Image, spec: PreprocessV1) -> npt.NDArray[np.uint8]:
    """Carry out version 1 of the specification, as docs/preprocessing.md defines it, on an image that was opened."""
    return _pixels(_fit(_Upright(decoded, spec, spec.mode, spec.background), spec, spec.polarity), spec)


def reformat_v2(decoded: Image.Image, spec: PreprocessV2) -> npt.NDArray[np.uint8]:
    """Carry out version 2 of the specification, as docs/preprocessing.md defines it, on an image that was opened."""
    levels_stay = spec.levels == "as-is"
    upright = _Upright(decoded, spec, spec.mode if levels_stay else "L", spec.alpha_background)
    if levels_stay:
        return _pixels(_fit(upright, spec, spec.polarity), spec)
    strokes = document(np.asarray(_resize(upright, *_measured_size(upright.height, upright.width, spec), "box")))
    dark_on_light = strokes.dark and spec.polarity == "as-is"
    if spec.frame == "as-is":
        plane = _inverted(strokes.ink) if dark_on_light else strokes.ink
        return _pixels(_fit(Image.fromarray(plane).convert(spec.mode), spec, "as-is"), spec)
    boxed = ink_box(strokes.ink, spec.size, partial(_resize_plane, resample=spec.resample))
    return np.repeat((_inverted(boxed) if dark_on_light else boxed)[..., None], spec.channels, axis=2)


BY_VERSION: Final[dict[int, Callable[[Image.Image, Any], npt.NDArray[np.uint8]]]] = {1: reformat_v1, 2: reformat_v2}
"""The function of each version in `sightline.preprocess.VERSIONS`: from an opened image to its pixels. Raises ImageError without a name."""


class _Upright:
    """A decoded image in the mode that is wanted, upright, over whatever lies under its transparent pixels.

    It is made in strips of the upright image's rows, each of which is narrowed at once: what comes after decoding needs a fraction of the
    decoded image's memory, and stays in the processor's cache. Rows are scaled apart from one another, so that strips change no pixel.
    """

    def __init__(self, decoded: Image.Image, spec: Preprocess, mode: str, under: tuple[int, ...] | Literal["auto"]) -> None:
        _demand_defined_white(decoded)
        self._decoded, self._mode = decoded, mode
        self._transpose = _upright(decoded) if spec.exif == "apply" else None
        width, height = decoded.size
        self.width, self.height = (height, width) if self._transpose in SIDEWAYS else (width, height)
        self.size = self.width, self.height
        self._transparent = decoded.has_transparency_data
        self._is_ready = decoded.mode == mode and self._transpose is None and not self._transparent
        strip = self.height if self._is_ready else max(1, STRIP_PIXELS // self.width)
        self._strips = [(top, min(top + strip, self.height)) for top in range(0, self.height, strip)]
        if self._transparent and under == "auto":
            self._under: tuple[int, ...] = _away_from(self._crop(top, bottom).convert("RGBA") for top, bottom in self._strips)
        else:
            self._under = under * (3 // spec.channels) if isinstance(under, tuple) else ()

    def whole(self) -> Image.Image:
        """Return all of it."""
        return self._joined(lambda strip: strip)

    def resize(self, size: tuple[int, int], method: Image.Resampling) -> Image.Image:
        """Return it with another width; its height stays."""
        return self._joined(lambda strip: strip.resize((size[0], strip.height), method))

    def _joined(self, change: Callable[[Image.Image], Image.Image]) -> Image.Image:
        if len(self._strips) == 1:
            return change(self._decoded if self._is_ready else self._strip(0, self.height))
        joined = None
        for top, bottom in self._strips:
            strip = change(self._strip(top, bottom))
            joined = joined or Image.new(strip.mode, (strip.width, self.height))
            joined.paste(strip, (0, top))
        assert joined is not None
        return joined

    def _strip(self, top: int, bottom: int) -> Image.Image:
        strip = _in_mode(self._crop(top, bottom), self._mode, self._under if self._transparent else None)
        return strip if self._transpose is None else strip.transpose(self._transpose)

    def _crop(self, top: int, bottom: int) -> Image.Image:
        """What of the decoded image becomes these rows of the upright one, in eight bits."""
        width, height = self._decoded.size
        if bottom - top < self.height:
            if self._transpose in BACKWARDS:
                top, bottom = self.height - bottom, self.height - top
            box = (top, 0, bottom, height) if self._transpose in SIDEWAYS else (0, top, width, bottom)
            return _eight_bit(self._decoded.crop(box))
        return _eight_bit(self._decoded)


def _pixels(image: Image.Image, spec: Preprocess) -> npt.NDArray[np.uint8]:
    # Its bytes at once: NumPy's own way to an image of Pillow takes twice as long for a small one.
    return np.frombuffer(image.tobytes(), np.uint8).reshape(spec.shape).copy()


def _upright(image: Image.Image) -> Image.Transpose | None:
    """What turns the image upright; None if it stands upright or does not say."""
    try:
        orientation = image.getexif().get(274)
    except Exception:  # noqa: BLE001 - a damaged EXIF block counts as none, as it does in browsers; the pixels are still good
        return None
    return UPRIGHT.get(orientation) if isinstance(orientation, int) else None


def _demand_defined_white(image: Image.Image) -> None:
    """Raise ImageError for samples of which nobody knows what white is."""
    if image.mode == "F":
        raise ImageError(
            "an image of 32-bit floating-point pixels has no defined white: save it with 8 or 16 bits first", kind="unsupported"
        )
    # Pillow gives 16-bit PPM the mode of 32-bit integers; of any other file that mode may mean any range.
    if image.mode == "I" and image.format != "PPM":
        raise ImageError("an image of 32-bit or signed integers has no defined white: save it with 8 or 16 bits first", kind="unsupported")


def _eight_bit(image: Image.Image) -> Image.Image:
    """Keep the high byte of 16-bit grey, as Pillow does by itself with 16-bit RGB."""
    if image.mode != "I" and not image.mode.startswith("I;16"):
        return image
    samples = np.asarray(image)
    grey = Image.fromarray((samples >> 8).astype(np.uint8))
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey.putalpha(Image.fromarray(np.where(samples == transparent, 0, 255).astype(np.uint8)))
    return grey


def _in_mode(image: Image.Image, mode: str, under: tuple[int, ...] | None) -> Image.Image:
    """Lay transparent pixels over the colour `under`, if there are any, and convert to `mode`."""
    try:
        if under is not None:
            rgba = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", rgba.size, (*under, 255)), rgba).convert("RGB")
        elif image.mode not in ("L", "RGB"):
            image = image.convert("L" if image.mode == "1" else "RGB")
    except (ArithmeticError, AssertionError, LookupError, TypeError, ValueError):
        raise ImageError(f"Pillow cannot turn its mode {image.mode} into RGB: convert it first", kind="unsupported") from None
    return image if image.mode == mode else image.convert(mode)


def _away_from(strips: Iterable[Image.Image]) -> tuple[int, int, int]:
    """White if what is visible is dark, else black: by the mean of its luma, weighted with its alpha."""
    weighted = visible = 0
    for rgba in strips:
        alpha = np.asarray(rgba.getchannel("A")).astype(np.int64)
        luma = np.asarray(rgba.convert("RGB").convert("L"))
        weighted += int((alpha * luma).sum())
        visible += int(alpha.sum())
    end = 255 if 2 * weighted <= 255 * visible else 0
    return end, end, end


def _measured_size(height: int, width: int, spec: Preprocess) -> tuple[int, int]:
    """The size (height, width) at which strokes are looked for: MEASURED_SIDE at most, or twice the result's longer side."""
    most, longer = max(MEASURED_SIDE, 2 * max(spec.size)), max(height, width)
    if longer <= most:
        return height, width
    return max(1, (2 * height * most + longer) // (2 * longer)), max(1, (2 * width * most + longer) // (2 * longer))


def _divisor(size: tuple[int, int], spec: PreprocessV2) -> int:
    """By what a JPEG of stored `size` (width, height) may be divided: 8, 4, 2 or 1, and stay twice as large as needed, either way up."""
    width, height = size
    for divisor in (8, 4, 2):
        needed = (_needed(high, wide, spec) for high, wide in ((height, width), (width, height)))
        sides = ((high, wide) for high, wide in ((height, width), (width, height)))
        if all(-(-side // divisor) >= 2 * least for sizes in zip(sides, needed, strict=True) for side, least in zip(*sizes, strict=True)):
            return divisor
    return 1


def _needed(height: int, width: int, spec: PreprocessV2) -> tuple[int, int]:
    """The size (height, width) to which an upright image is scaled first."""
    return _measured_size(height, width, spec) if spec.levels == "document" else _scaled_size(height, width, spec)


def _scaled_size(height: int, width: int, spec: Preprocess) -> tuple[int, int]:
    """The size (height, width) to which `fit` scales an image, before it cuts or pads."""
    high, wide = spec.size
    if spec.fit == "stretch":
        return high, wide
    if spec.fit == "crop":
        # torchvision's Resize and CenterCrop: the longer side is cut down to an integer.
        cover_high, cover_wide = round(high / spec.crop_fraction), round(wide / spec.crop_fraction)
        if cover_high * width >= cover_wide * height:
            return cover_high, cover_high * width // height
        return cover_wide * height // width, cover_wide
    if high * width <= wide * height:
        return high, max(1, round(high * width / height))
    return max(1, round(wide * height / width)), wide


def _fit(image: Image.Image | _Upright, spec: Preprocess, polarity: Polarity) -> Image.Image:
    """Scale to `size` by the rule `fit`, and settle the polarity."""
    high, wide = spec.size
    scaled = _resize(image, *_scaled_size(image.height, image.width, spec), spec.resample)
    if spec.fit == "crop":
        # torchvision's CenterCrop: the corner is rounded half to even.
        top, left = round((scaled.height - high) / 2), round((scaled.width - wide) / 2)
        scaled = scaled.crop((left, top, left + wide, top + high))
    # Padding would outvote the image's own border, so the polarity is settled before it.
    scaled = _polarised(scaled, polarity)
    if spec.fit != "pad":
        return scaled
    canvas = Image.new(spec.mode, (wide, high), spec.background if spec.channels > 1 else spec.background[0])
    canvas.paste(scaled, ((wide - scaled.width) // 2, (high - scaled.height) // 2))
    return canvas


def _resize(image: Image.Image | _Upright, height: int, width: int, resample: Resample) -> Image.Image:
    """Scale the width, then the height. Raises ImageError if what lies between the two has more than MAX_PIXELS pixels."""
    intermediate_pixels = max(height, image.height) * width
    if intermediate_pixels > MAX_PIXELS:
        raise ImageError(
            f"{image.width} x {image.height} is too long and thin: scaling it for this model takes {intermediate_pixels:,} pixels",
            kind="too-large",
        )
    # In one call Pillow 13 scales the height of a tall image first, as no Pillow before it did, and so rounds otherwise.
    if image.size == (width, height):  # what Pillow would copy as it is
        return image.whole() if isinstance(image, _Upright) else image
    method = FILTERS[resample]
    return image.resize((width, image.height), method).resize((width, height), method)


def _resize_plane(plane: npt.NDArray[np.uint8], height: int, width: int, resample: Resample) -> npt.NDArray[np.uint8]:
    return np.asarray(_resize(Image.fromarray(plane), height, width, resample))


def _inverted(plane: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    return np.subtract(255, plane, dtype=np.uint8)


def _polarised(image: Image.Image, polarity: Polarity) -> Image.Image:
    """Invert the image if `polarity` is light-on-dark and the median of its border is above 127."""
    if polarity == "as-is":
        return image
    pixels = np.asarray(image)
    border = np.ones(pixels.shape[:2], bool)
    border[1:-1, 1:-1] = False
    return Image.fromarray(255 - pixels) if np.median(pixels[border]) > 127 else image
