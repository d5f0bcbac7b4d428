"""The one reference of preprocessing: training, export, calibration, clients, batch jobs and benchmarks all call `reformat`.

NumPy and Pillow only. What the specification says in words (`sightline.preprocess`), this file says in code; the golden images in
the tests hold both to the same pixels.
"""

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from sightline.errors import ImageError
from sightline.image import MAX_PIXELS, ImageInput, name_of, open_image
from sightline.preprocess import Preprocess, PreprocessV1

FILTERS: Final = {
    "nearest": Image.Resampling.NEAREST,
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}

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


def reformat(image: ImageInput, spec: Preprocess, max_pixels: int = MAX_PIXELS) -> npt.NDArray[np.uint8]:
    """Turn an image into the network's input: a uint8 array of shape (height, width, channels), as the version of `spec` defines it.

    The array is new, C-contiguous and writable; `image` is not changed. Raises ImageError, with the image's path, if the image cannot
    be read, has more than `max_pixels`, or cannot take that shape.
    """
    return BY_VERSION[spec.version](image, spec, max_pixels)


def reformat_v1(image: ImageInput, spec: PreprocessV1, max_pixels: int = MAX_PIXELS) -> npt.NDArray[np.uint8]:
    """Carry out version 1 of the specification, as docs/preprocessing.md defines it."""
    decoded = open_image(image, max_pixels)
    transpose = _upright(decoded) if spec.exif == "apply" else None
    try:
        decoded = _in_mode(_eight_bit(decoded), spec)
        decoded = _fit(decoded if transpose is None else decoded.transpose(transpose), spec)
    except ImageError as error:
        raise ImageError(f"{name_of(image)}: {error}") from None
    except MemoryError:
        raise ImageError(f"{name_of(image)}: not enough memory to scale {decoded.width} x {decoded.height} pixels") from None
    return np.array(decoded, dtype=np.uint8).reshape(spec.shape)


BY_VERSION: Final[dict[int, Callable[[ImageInput, Any, int], npt.NDArray[np.uint8]]]] = {1: reformat_v1}
"""The function of each version in `sightline.preprocess.VERSIONS`."""


def _upright(image: Image.Image) -> Image.Transpose | None:
    """What turns the image upright; None if it stands upright or does not say."""
    try:
        orientation = image.getexif().get(274)
    except Exception:  # noqa: BLE001 - a damaged EXIF block counts as none, as it does in browsers; the pixels are still good
        return None
    return UPRIGHT.get(orientation) if isinstance(orientation, int) else None


def _eight_bit(image: Image.Image) -> Image.Image:
    """Keep the high byte of 16-bit grey, as Pillow does by itself with 16-bit RGB. Raises ImageError for wider samples."""
    if image.mode == "F":
        raise ImageError("an image of 32-bit floating-point pixels has no defined white: save it with 8 or 16 bits first")
    # Pillow gives 16-bit PPM the mode of 32-bit integers; of any other file that mode may mean any range.
    if image.mode == "I" and image.format != "PPM":
        raise ImageError("an image of 32-bit or signed integers has no defined white: save it with 8 or 16 bits first")
    if image.mode != "I" and not image.mode.startswith("I;16"):
        return image
    samples = np.asarray(image)
    grey = Image.fromarray((samples >> 8).astype(np.uint8))
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey.putalpha(Image.fromarray(np.where(samples == transparent, 0, 255).astype(np.uint8)))
    return grey


def _in_mode(image: Image.Image, spec: Preprocess) -> Image.Image:
    """Lay transparent pixels over `background` and convert to `mode`."""
    try:
        if image.has_transparency_data:
            rgba = image.convert("RGBA")
            colour = spec.background * (3 // spec.channels)
            image = Image.alpha_composite(Image.new("RGBA", rgba.size, (*colour, 255)), rgba).convert("RGB")
        elif image.mode not in ("L", "RGB"):
            image = image.convert("L" if image.mode == "1" else "RGB")
    except (ArithmeticError, AssertionError, LookupError, TypeError, ValueError):
        raise ImageError(f"Pillow cannot turn its mode {image.mode} into RGB: convert it first") from None
    return image if image.mode == spec.mode else image.convert(spec.mode)


def _fit(image: Image.Image, spec: Preprocess) -> Image.Image:
    """Scale to `size` by the rule `fit`, and settle the polarity."""
    high, wide = spec.size
    height, width = image.height, image.width
    if spec.fit == "stretch":
        return _polarised(_resize(image, high, wide, spec), spec)
    if spec.fit == "crop":
        # torchvision's Resize and CenterCrop: the longer side is cut down to an integer, the crop's corner is rounded half to even.
        cover_high, cover_wide = round(high / spec.crop_fraction), round(wide / spec.crop_fraction)
        if cover_high * width >= cover_wide * height:
            scaled = _resize(image, cover_high, cover_high * width // height, spec)
        else:
            scaled = _resize(image, cover_wide * height // width, cover_wide, spec)
        top, left = round((scaled.height - high) / 2), round((scaled.width - wide) / 2)
        return _polarised(scaled.crop((left, top, left + wide, top + high)), spec)
    if high * width <= wide * height:
        scaled = _resize(image, high, max(1, round(high * width / height)), spec)
    else:
        scaled = _resize(image, max(1, round(wide * height / width)), wide, spec)
    # Padding would outvote the image's own border, so the polarity is settled before it.
    scaled = _polarised(scaled, spec)
    canvas = Image.new(spec.mode, (wide, high), spec.background if spec.channels > 1 else spec.background[0])
    canvas.paste(scaled, ((wide - scaled.width) // 2, (high - scaled.height) // 2))
    return canvas


def _resize(image: Image.Image, height: int, width: int, spec: Preprocess) -> Image.Image:
    """Scale the width, then the height. Raises ImageError if what lies between the two has more than MAX_PIXELS pixels."""
    intermediate_pixels = max(height, image.height) * width
    if intermediate_pixels > MAX_PIXELS:
        raise ImageError(
            f"{image.width} x {image.height} is too long and thin: scaling it for this model takes {intermediate_pixels:,} pixels"
        )
    # In one call Pillow 13 scales the height of a tall image first, as no Pillow before it did, and so rounds otherwise.
    method = FILTERS[spec.resample]
    return image.resize((width, image.height), method).resize((width, height), method)


def _polarised(image: Image.Image, spec: Preprocess) -> Image.Image:
    """Invert the image if `polarity` is light-on-dark and the median of its border is above 127."""
    if spec.polarity == "as-is":
        return image
    pixels = np.asarray(image)
    border = np.ones(pixels.shape[:2], bool)
    border[1:-1, 1:-1] = False
    return Image.fromarray(255 - pixels) if np.median(pixels[border]) > 127 else image
