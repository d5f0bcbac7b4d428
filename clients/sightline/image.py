"""Opens an image that nobody vouches for: allowed formats only, bounded bytes and pixels, one clear sentence when it fails."""

import io
import os
import stat
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from sightline.errors import ImageError

ImageInput: TypeAlias = str | os.PathLike[str] | bytes | Image.Image | npt.NDArray[np.uint8]
"""A path, an encoded file's bytes, a Pillow image, or uint8 pixels of shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4)."""

FORMATS: Final = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
"""Pillow's decoders that a stranger's file may reach. JPEG's opens MPO too, the format of some phones: its first image."""

MAX_BYTES: Final = 64 * 1024 * 1024
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


def open_image(image: ImageInput) -> Image.Image:
    """Decode the first frame of `image`, completely, as Pillow gives it (any mode, not yet turned upright).

    A PIL image is taken at the frame where it stands. Raises ImageError, with the path in the message, if it cannot be
    read, is no image of an allowed format, is damaged, or exceeds MAX_BYTES, MAX_PIXELS or MAX_SIDE.
    """
    if isinstance(image, Image.Image):
        return _loaded(image, "image")
    if isinstance(image, np.ndarray):
        return _from_array(image)
    if isinstance(image, bytes):
        return _decode(image, "image")
    if isinstance(image, (str, os.PathLike)):
        return _decode(_read(image, name_of(image)), name_of(image))
    raise ImageError(f"an image is a path, bytes, a PIL image or a uint8 array, not a {type(image).__name__}")


def name_of(image: ImageInput) -> str:
    """What an error message calls the image: its path if it has one, with what cannot be printed escaped."""
    if not isinstance(image, (str, os.PathLike)):
        return "image"
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in os.fsdecode(image))


def _read(path: str | os.PathLike[str], name: str) -> bytes:
    try:
        with open(path, "rb", opener=_open_at_once) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ImageError(f"{name}: cannot be read: not a file but a pipe, a socket or a device")
            if status.st_size > MAX_BYTES:
                raise _too_large(name)
            return file.read(max(status.st_size, 65_536))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ImageError(f"{name}: cannot be read: {reason}") from None


def _open_at_once(path: str, flags: int) -> int:
    # O_NONBLOCK: opening a FIFO nobody writes to would otherwise wait for ever.
    return os.open(path, flags | os.O_NONBLOCK)


def _too_large(name: str) -> ImageError:
    return ImageError(f"{name}: larger than {MAX_BYTES // 1024**2} MiB, the most that one image may have")


def _decode(content: bytes, name: str) -> Image.Image:
    if not content:
        raise ImageError(f"{name}: the file is empty")
    if len(content) > MAX_BYTES:
        raise _too_large(name)
    try:
        file = Image.open(io.BytesIO(content), formats=FORMATS)
        # Pillow's TIFF reader turns the image upright by itself and forgets that it did.
        orientation = file.getexif().get(274) if file.format == "TIFF" else None
    except UnidentifiedImageError:
        raise ImageError(f"{name}: not an image in a format that is read here ({', '.join(FORMATS)})") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _too_many(name) from None
    except Exception as error:  # noqa: BLE001 - a hostile file makes Pillow's decoders raise nearly anything
        raise _damaged(name, error) from None
    image = _loaded(file, name)
    turn = SIDEWAYS.get(orientation) if isinstance(orientation, int) else None
    if turn is not None:
        image = image.transpose(turn)
        image.getexif()[274] = orientation
    return image


def _loaded(image: Image.Image, name: str) -> Image.Image:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise _too_many(name)
    if max(width, height) > MAX_SIDE:
        raise ImageError(f"{name}: {width} x {height} has a side of more than {MAX_SIDE:,} pixels, the longest that is decoded")
    if not width or not height:
        raise ImageError(f"{name}: the image has no pixels ({width} x {height})")
    try:
        image.load()
    except Exception as error:  # noqa: BLE001 - as above
        raise _damaged(name, error) from None
    return image


def _from_array(pixels: npt.NDArray[np.uint8]) -> Image.Image:
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] not in (1, 3, 4)):
        raise ImageError(
            f"an array of pixels must be uint8 of shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), not {pixels.dtype} {pixels.shape}"
        )
    if not pixels.size:
        raise ImageError(f"the image has no pixels (array of shape {pixels.shape})")
    plane = pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels
    return _loaded(Image.fromarray(np.ascontiguousarray(plane)), "image")


def _too_many(name: str) -> ImageError:
    return ImageError(f"{name}: more than {MAX_PIXELS:,} pixels, the most that are decoded")


def _damaged(name: str, error: Exception) -> ImageError:
    if isinstance(error, MemoryError):
        return ImageError(f"{name}: not enough memory to decode it")
    return ImageError(f"{name}: damaged image ({(str(error) or type(error).__name__).splitlines()[0][:200]})")
