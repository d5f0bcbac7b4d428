"""Opens an image that nobody vouches for: allowed formats only, bounded bytes and pixels, one clear sentence when it fails."""

import io
import os
from collections.abc import Callable
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from sightline.errors import ImageError
from sightline.host.files import MIB, read_bytes, reason_of, size_text
from sightline.host.text import one_line, printable

ImageInput: TypeAlias = str | os.PathLike[str] | bytes | Image.Image | npt.NDArray[np.uint8]
"""A path, an encoded file's bytes, a Pillow image, or uint8 pixels of shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4)."""

FORMATS: Final = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
"""Pillow's decoders that a stranger's file may reach. JPEG's opens MPO too, the format of some phones: its first image."""

MAX_BYTES: Final = 64 * MIB
"""Of an encoded file."""

MAX_PIXELS: Final = 1024 * 1024 * 1024 // 4 // 3
"""89.5 million: where Pillow begins to warn of a decompression bomb (PIL.Image.MAX_IMAGE_PIXELS), and we refuse."""

MAX_SIDE: Final = 65_535
"""Pixels: the longest side that a JPEG can have. Pillow's filters take memory in proportion to a side, 48 bytes a pixel."""

SIDEWAYS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
"""From upright back to how the file with that orientation (Exif 2.32, tag 274) stores it."""


def open_image(image: ImageInput, max_pixels: int = MAX_PIXELS, reduce: Callable[[tuple[int, int]], int] | None = None) -> Image.Image:
    """Decode the first frame of `image` completely and return it in Pillow's mode for it, not yet turned upright.

    Of a Pillow image the current frame counts. Raises ImageError, with the path in the message, if the image cannot be read, has no
    allowed format, is damaged, or exceeds MAX_BYTES, `max_pixels` or MAX_SIDE. A JPEG is decoded at 1/2, 1/4 or 1/8 of its size if
    `reduce`, given its stored (width, height), returns 2, 4 or 8.
    """
    if isinstance(image, Image.Image):
        return _loaded(image, "image", max_pixels)
    if isinstance(image, np.ndarray):
        return _from_array(image, max_pixels)
    if isinstance(image, bytes):
        return _decode(image, "image", max_pixels, reduce)
    if isinstance(image, (str, os.PathLike)):
        return _decode(_read(image), name_of(image), max_pixels, reduce)
    raise ImageError(f"an image is a path, bytes, a PIL image or a uint8 array, not a {type(image).__name__}")


def declared_pixels(content: bytes) -> int:
    """Return how many pixels an encoded image says that it has, without decoding it; 0 for what is no image."""
    try:
        width, height = Image.open(io.BytesIO(content), formats=FORMATS).size
    except Exception:  # noqa: BLE001 - whoever decodes it will say what is wrong
        return 0
    return width * height


def name_of(image: ImageInput) -> str:
    """Return what an error message calls the image: its path if it has one, with what cannot be printed escaped."""
    return printable(image) if isinstance(image, (str, os.PathLike)) else "image"


def _read(path: str | os.PathLike[str]) -> bytes:
    try:
        return read_bytes(path, MAX_BYTES)
    except OSError as error:
        raise ImageError(f"{name_of(path)}: cannot be read: {reason_of(error)}") from None
    except ValueError as error:  # a path that holds a null byte
        raise ImageError(f"{name_of(path)}: cannot be read: {error}") from None


def _decode(content: bytes, name: str, max_pixels: int, reduce: Callable[[tuple[int, int]], int] | None) -> Image.Image:
    if not content:
        raise ImageError(f"{name}: the file is empty")
    if len(content) > MAX_BYTES:
        raise ImageError(f"{name}: larger than {size_text(MAX_BYTES)}, the most that one image may have")
    try:
        file = Image.open(io.BytesIO(content), formats=FORMATS)
        # Pillow's TIFF reader turns the image upright by itself and forgets that it did.
        orientation = file.getexif().get(274) if file.format == "TIFF" else None
    except UnidentifiedImageError:
        raise ImageError(f"{name}: not an image in a format that is read here ({', '.join(FORMATS)})") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _too_many(name, max_pixels) from None
    except Exception as error:  # noqa: BLE001 - a hostile file makes Pillow's decoders raise nearly anything
        raise _damaged(name, error) from None
    if reduce is not None and file.format in ("JPEG", "MPO"):
        divisor = reduce(file.size)
        if divisor > 1 and file.width * file.height <= max_pixels:
            file.draft(None, (file.width // divisor, file.height // divisor))
    image = _loaded(file, name, max_pixels)
    transpose = SIDEWAYS.get(orientation) if isinstance(orientation, int) else None
    if transpose is not None:
        image = image.transpose(transpose)
        image.getexif()[274] = orientation
    return image


def _loaded(image: Image.Image, name: str, max_pixels: int) -> Image.Image:
    width, height = image.size
    if width * height > max_pixels:
        raise _too_many(name, max_pixels)
    if max(width, height) > MAX_SIDE:
        raise ImageError(f"{name}: {width} x {height} has a side of more than {MAX_SIDE:,} pixels, the longest that is decoded")
    if not width or not height:
        raise ImageError(f"{name}: the image has no pixels ({width} x {height})")
    try:
        image.load()
    except Exception as error:  # noqa: BLE001 - as above
        raise _damaged(name, error) from None
    return image


def _from_array(pixels: npt.NDArray[np.uint8], max_pixels: int) -> Image.Image:
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] not in (1, 3, 4)):
        raise ImageError(
            f"an array of pixels must be uint8 of shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), not {pixels.dtype} {pixels.shape}"
        )
    if not pixels.size:
        raise ImageError(f"the image has no pixels (array of shape {pixels.shape})")
    squeezed = pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels
    return _loaded(Image.fromarray(np.ascontiguousarray(squeezed)), "image", max_pixels)


def _too_many(name: str, max_pixels: int) -> ImageError:
    return ImageError(f"{name}: more than {max_pixels:,} pixels, the most that are decoded")


def _damaged(name: str, error: Exception) -> ImageError:
    if isinstance(error, MemoryError):
        return ImageError(f"{name}: not enough memory to decode it")
    return ImageError(f"{name}: damaged image ({one_line(error)})")
