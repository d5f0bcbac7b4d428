"""Opens a picture that nobody vouches for: allowed formats only, bounded bytes and pixels, one clear sentence when it fails."""

import io
import os
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from sightline.errors import PictureError

Picture: TypeAlias = str | os.PathLike[str] | bytes | Image.Image | npt.NDArray[np.uint8]
"""A path, an encoded file's bytes, a Pillow image, or uint8 pixels of shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4)."""

FORMATS: Final = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
"""Pillow's decoders that a stranger's file may reach. JPEG's opens MPO too, the format of some phones: its first picture."""

MAX_BYTES: Final = 64 * 1024 * 1024
"""Of an encoded file."""

MAX_PIXELS: Final = 1024 * 1024 * 1024 // 4 // 3
"""89.5 million: where Pillow begins to warn of a decompression bomb (PIL.Image.MAX_IMAGE_PIXELS), and we refuse."""


def open_picture(picture: Picture) -> Image.Image:
    """Decode the first frame of `picture`, completely, as Pillow gives it (any mode, not yet turned upright).

    Raises PictureError, with the path in the message, if it cannot be read, is no picture of an allowed format, is
    damaged, or exceeds MAX_BYTES or MAX_PIXELS.
    """
    if isinstance(picture, Image.Image):
        return _loaded(picture, "picture")
    if isinstance(picture, np.ndarray):
        return _from_array(picture)
    if isinstance(picture, bytes):
        return _decode(picture, "picture")
    if isinstance(picture, (str, os.PathLike)):
        return _decode(_read(Path(picture)), name_of(picture))
    raise PictureError(f"a picture is a path, bytes, a PIL image or a uint8 array, not a {type(picture).__name__}")


def name_of(picture: Picture) -> str:
    """What an error message calls the picture: its path if it has one."""
    return str(picture) if isinstance(picture, (str, os.PathLike)) else "picture"


def _read(path: Path) -> bytes:
    try:
        # O_NONBLOCK: opening a FIFO nobody writes to would otherwise wait for ever.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            content = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise PictureError(f"{path}: cannot be read: {reason}") from None
    return content


def _decode(content: bytes, name: str) -> Image.Image:
    if not content:
        raise PictureError(f"{name}: the file is empty")
    if len(content) > MAX_BYTES:
        raise PictureError(f"{name}: larger than {MAX_BYTES // 1024**2} MiB, the most that one picture may have")
    try:
        image = Image.open(io.BytesIO(content), formats=FORMATS)
    except UnidentifiedImageError:
        raise PictureError(f"{name}: not a picture in a format that is read here ({', '.join(FORMATS)})") from None
    except Image.DecompressionBombError:
        raise PictureError(f"{name}: more than {MAX_PIXELS:,} pixels, the most that are decoded") from None
    except Exception as error:  # noqa: BLE001 - a hostile file makes Pillow's decoders raise nearly anything
        raise PictureError(f"{name}: damaged picture ({_reason(error)})") from None
    return _loaded(image, name)


def _loaded(image: Image.Image, name: str) -> Image.Image:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise PictureError(f"{name}: {width} x {height} is more than {MAX_PIXELS:,} pixels, the most that are decoded")
    if not width or not height:
        raise PictureError(f"{name}: the picture has no pixels ({width} x {height})")
    try:
        image.load()
    except Exception as error:  # noqa: BLE001 - as above
        raise PictureError(f"{name}: damaged picture ({_reason(error)})") from None
    return image


def _from_array(pixels: npt.NDArray[np.uint8]) -> Image.Image:
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] not in (1, 3, 4)):
        raise PictureError(
            f"an array of pixels must be uint8 of shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), not {pixels.dtype} {pixels.shape}"
        )
    if not pixels.size:
        raise PictureError(f"the picture has no pixels (array of shape {pixels.shape})")
    plane = pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels
    return _loaded(Image.fromarray(np.ascontiguousarray(plane)), "picture")


def _reason(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:200]
