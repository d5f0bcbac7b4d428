"""The way from a path, bytes or an array to pixels: bounded before anything is decoded, and held to what the format can tell of damage."""

import os
import re
from collections.abc import Callable
from typing import Final, Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.TiffImagePlugin import TiffImageFile

from sightline.errors import ImageError, ImageErrorKind
from sightline.host.files import MIB, FileTooLarge, read_bytes, reason_of, size_text
from sightline.host.text import one_line, printable
from sightline.image import gif, png, tiff
from sightline.image.formats import FORMATS, HEAD_BYTES, Damaged, Unsupported, format_of
from sightline.image.openers import OPENERS, whats_unsupported
from sightline.image.orientation import ORIENTATION, SIDEWAYS, settle_orientation


@runtime_checkable
class BinaryFile(Protocol):
    """What is read like a file that was opened for reading bytes. Its `name`, if it has one that is a text, names it in errors."""

    def read(self, size: int = -1, /) -> bytes:
        """Return up to `size` bytes, all if it is negative; what it raises as OSError becomes an ImageError."""
        ...


ImageInput: TypeAlias = str | os.PathLike[str] | bytes | BinaryFile | Image.Image | npt.NDArray[np.uint8]
"""A path, an encoded file's bytes, an open file, a Pillow image, or uint8 pixels of shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4)."""

MAX_BYTES: Final = 64 * MIB
"""Of an encoded file."""

MAX_PIXELS: Final = 1024 * 1024 * 1024 // 4 // 3
"""89.5 million, unless the caller says otherwise: where Pillow begins to warn of a decompression bomb (PIL.Image.MAX_IMAGE_PIXELS)."""

MAX_SIDE: Final = 65_535
"""Pixels: the longest side that a JPEG can have. Pillow's filters take memory in proportion to a side, 48 bytes a pixel."""

COMPLAINTS: Final[dict[str, Callable[[bytes], str]]] = {"PNG": png.complaint, "GIF": gif.complaint}
"""By format: what is wrong with a file that Pillow decoded without a word; empty if nothing is. A TIFF is asked after before."""

COPIES: Final = {"WEBP": 4, "AVIF": 3, "HEIC": 3}
"""By format; 1 for the others, but for progressive JPEGs, whose coefficients are kept until the end."""

UNSUPPORTED: Final = re.compile(r"unsupported|not (yet )?supported|cannot handle|not (available|implemented)|unimplemented", re.IGNORECASE)
"""How Pillow and its libraries say that a file is well and they are not able to read it."""

Reduce: TypeAlias = Callable[[tuple[int, int]], int]
"""Given the stored (width, height) of a JPEG, the fraction at which it is to be decoded: 1, 2, 4 or 8."""

Admit: TypeAlias = Callable[[int], None]
"""Told for how many pixels, of four bytes, an image is about to take memory; it may wait until there is room, and raise to refuse."""


class _Refused(Exception):
    """Why an image is not decoded, in words that follow its name: the name is made printable only where it is needed."""

    def __init__(self, reason: str, kind: ImageErrorKind = "image") -> None:
        super().__init__(reason)
        self.kind: ImageErrorKind = kind


def open_image(image: ImageInput, max_pixels: int = MAX_PIXELS, reduce: Reduce | None = None, admit: Admit | None = None) -> Image.Image:
    """Decode the first frame of `image` completely and return it in Pillow's mode for it, not yet turned upright.

    Of a Pillow image the current frame counts. Samples mean what the file's tags say: of more than eight bits, white is 65,535.
    With `reduce`, a JPEG is decoded at a fraction, its sides divided by that number and rounded up. `max_pixels` bounds the pixels
    that the file declares, and `admit` is asked before they are decoded. Raises ImageError, with the path in the message, if the image
    cannot be read, has no allowed format, is damaged, or exceeds MAX_BYTES, `max_pixels` or MAX_SIDE.
    """
    try:
        if isinstance(image, bytes):
            return _decode(image, max_pixels, reduce, admit)
        if isinstance(image, (str, os.PathLike)):
            return _decode(_read(image), max_pixels, reduce, admit)
        if isinstance(image, Image.Image):
            return settle_orientation(_settled(_loaded(image, max_pixels)), is_callers=True)
        if isinstance(image, np.ndarray):
            return _from_array(image, max_pixels)
        if isinstance(image, BinaryFile):
            return _decode(_read_open(image), max_pixels, reduce, admit)
    except _Refused as refused:
        raise ImageError(f"{name_of(image)}: {refused}", kind=refused.kind) from None
    raise ImageError(f"an image is a path, bytes, an open file, a PIL image or a uint8 array, not a {type(image).__name__}")


def declared_pixels(content: bytes) -> int:
    """Return how many pixels an encoded image says that it has, without decoding it; 0 for what is no image."""
    try:
        width, height = OPENERS[format_of(content[:HEAD_BYTES]) or ""](content).size
    except Exception:  # noqa: BLE001 - whoever decodes it will say what is wrong
        return 0
    return width * height


def name_of(image: ImageInput) -> str:
    """Return what an error message calls the image: its path if it has one, with what cannot be printed escaped."""
    if isinstance(image, (str, os.PathLike)):
        return printable(image)
    name = getattr(image, "name", None)
    return printable(name) if isinstance(name, str) else "image"


def _read(path: str | os.PathLike[str]) -> bytes:
    try:
        return read_bytes(path, MAX_BYTES)
    except FileTooLarge as error:
        raise _Refused(f"cannot be read: {reason_of(error)}", "too-large") from None
    except OSError as error:
        raise _Refused(f"cannot be read: {reason_of(error)}", "unreadable-file") from None
    except ValueError as error:  # a path that holds a null byte
        raise _Refused(f"cannot be read: {error}", "unreadable-file") from None


def _read_open(file: BinaryFile) -> bytes:
    parts, missing = [], MAX_BYTES + 1
    try:
        # A pipe or a socket may give less than it was asked for.
        while missing and (part := file.read(missing)):
            parts.append(part)
            missing -= len(part)
    except (OSError, ValueError) as error:
        raise _Refused(f"cannot be read: {reason_of(error) if isinstance(error, OSError) else error}", "unreadable-file") from None
    if not all(isinstance(part, bytes) for part in parts):
        raise _Refused("it was opened for reading text, not bytes")
    return b"".join(parts)


def _decode(content: bytes, max_pixels: int, reduce: Reduce | None, admit: Admit | None) -> Image.Image:
    if not content:
        raise _Refused("the file is empty", "empty")
    if len(content) > MAX_BYTES:
        raise _Refused(f"larger than {size_text(MAX_BYTES)}, the most that one image may have", "too-large")
    kind = format_of(content[:HEAD_BYTES])
    if kind is None:
        raise _Refused(f"not an image in a format that is read here ({', '.join(FORMATS)})")
    if kind not in OPENERS:
        raise _Refused(f"{kind} is not read here: save it as JPEG or PNG", "unsupported")
    try:
        file = OPENERS[kind](content)
        # Pillow's TIFF reader turns the image upright by itself and forgets that it did; AVIF's turn belongs to the image.
        turned = file.getexif().get(ORIENTATION) if kind in ("TIFF", "AVIF") else None
    except Exception as error:  # noqa: BLE001 - a hostile file makes Pillow's decoders raise nearly anything
        raise _refusal(kind, content, error) from None
    _demand_bounds(file, max_pixels)
    if reduce is not None and isinstance(file, JpegImageFile):
        _draft(file, reduce(file.size))
    if admit is not None:
        admit(file.width * file.height * _copies(file, kind))
    try:
        if kind == "TIFF" and isinstance(file, TiffImageFile):
            tiff.prepare(file, content)
        file.load()
        damage = COMPLAINTS[kind](content) if kind in COMPLAINTS else ""
    except Exception as error:  # noqa: BLE001 - as above
        raise _refusal(kind, content, error) from None
    if damage:
        raise _Refused(f"damaged image ({damage})")
    settle_orientation(file)
    return _turned_back(_settled(file) if kind in ("TIFF", "GIF") else file, kind, turned)


def _loaded(image: Image.Image, max_pixels: int) -> Image.Image:
    _demand_bounds(image, max_pixels)
    try:
        image.load()
    except Exception as error:  # noqa: BLE001 - as above
        raise _damaged(error) from None
    return image


def _demand_bounds(image: Image.Image, max_pixels: int) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise _Refused(f"more than {max_pixels:,} pixels, the most that are decoded", "too-large")
    if max(width, height) > MAX_SIDE:
        raise _Refused(f"{width} x {height} has a side of more than {MAX_SIDE:,} pixels, the longest that is decoded", "too-large")
    if not width or not height:
        raise _Refused(f"the image has no pixels ({width} x {height})")


def _copies(file: Image.Image, kind: str) -> int:
    """How many times the memory of the decoded image its decoder takes, by measuring images of 89 megapixels with Pillow 13."""
    if kind == "JPEG":
        return 2 if "progressive" in file.info else 1
    return COPIES.get(kind, 1)


def _draft(file: JpegImageFile, fraction: int) -> None:
    """Have a JPEG decoded at 1/`fraction`. Pillow takes the size that is wanted at least, and divides by it; exact for powers of two."""
    file.draft(None, (file.width / fraction, file.height / fraction))  # type: ignore[arg-type]


def _settled(image: Image.Image) -> Image.Image:
    """Where Pillow left something of the file's own description undone, do it."""
    try:
        if isinstance(image, TiffImageFile):
            return tiff.in_full_range(image)
        return gif.uncovered_is_transparent(image) if isinstance(image, GifImageFile) else image
    except Unsupported as error:
        raise _Refused(str(error), "unsupported") from None
    except MemoryError as error:
        raise _damaged(error) from None


def _turned_back(image: Image.Image, kind: str, orientation: object) -> Image.Image:
    """Undo what Pillow did to a TIFF, or do what an AVIF's own properties ask for: they are no EXIF, which may be ignored."""
    transpose = SIDEWAYS.get(orientation) if isinstance(orientation, int) else None
    if transpose is None:
        return image
    if kind == "AVIF":
        upright = {Image.Transpose.ROTATE_90: Image.Transpose.ROTATE_270, Image.Transpose.ROTATE_270: Image.Transpose.ROTATE_90}
        image = image.transpose(upright.get(transpose, transpose))
        image.getexif()[ORIENTATION] = 1
    else:
        image = image.transpose(transpose)
        image.getexif()[ORIENTATION] = orientation
    return image


def _from_array(pixels: npt.NDArray[np.uint8], max_pixels: int) -> Image.Image:
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] not in (1, 3, 4)):
        raise ImageError(
            f"an array of pixels must be uint8 of shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), not {pixels.dtype} {pixels.shape}"
        )
    if not pixels.size:
        raise ImageError(f"the image has no pixels (array of shape {pixels.shape})")
    squeezed = pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels
    return _loaded(Image.fromarray(np.ascontiguousarray(squeezed)), max_pixels)


def _refusal(kind: str, content: bytes, error: Exception) -> _Refused:
    """Say what became of a file of a known format: unsupported is not damaged."""
    if isinstance(error, Unsupported):
        return _Refused(str(error), "unsupported")
    if isinstance(error, Damaged):
        return _damaged(error)
    reason = whats_unsupported(kind, content)
    if not reason and not isinstance(error, MemoryError) and UNSUPPORTED.search(str(error)):
        reason = f"a {kind} of a kind that is not read here ({one_line(error)}): save it as PNG"
    return _Refused(reason, "unsupported") if reason else _damaged(error)


def _damaged(error: Exception) -> _Refused:
    if isinstance(error, MemoryError):
        return _Refused("not enough memory to decode it")
    return _Refused(f"damaged image ({one_line(error)})")
