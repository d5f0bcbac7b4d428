"""Opens a file whose format is known with the one decoder that reads it, without looking at its pixels yet.

Pillow's own `Image.open` would refuse what is larger than its warning, and could be taught further formats by any other package.
"""

import io
from collections.abc import Callable
from typing import Final

from PIL import Image
from PIL.AvifImagePlugin import SUPPORTED as AVIF_SUPPORTED
from PIL.AvifImagePlugin import AvifImageFile
from PIL.BmpImagePlugin import BmpImageFile, DibImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import jpeg_factory
from PIL.PngImagePlugin import PngImageFile
from PIL.PpmImagePlugin import PpmImageFile
from PIL.WebPImagePlugin import WebPImageFile

from sightline.image import tiff
from sightline.image.formats import Unsupported

HEIC_NEEDS: Final = "HEIC is read with the extra heif: pip install 'sightline[heif]'"
AVIF_NEEDS: Final = "AVIF is read by a Pillow that was built with it, as Pillow's own wheels are"

LOSSLESS: Final = frozenset({0xC3, 0xC5, 0xC6, 0xC7, 0xCB, 0xCD, 0xCE, 0xCF, 0xF7})
"""Markers of frames that are lossless, hierarchical or JPEG-LS (ITU-T T.81, table B.1; T.87): no browser reads them either."""


def _bitmap(content: bytes) -> Image.Image:
    # A DIB is a BMP without the file's header, as the clipboard of Windows has it.
    return BmpImageFile(io.BytesIO(content)) if content[:2] == b"BM" else DibImageFile(io.BytesIO(content))


def _avif(content: bytes) -> Image.Image:
    if not AVIF_SUPPORTED:
        raise Unsupported(AVIF_NEEDS)
    return AvifImageFile(io.BytesIO(content))


def _heic(content: bytes) -> Image.Image:
    try:
        from pi_heif import HeifImageFile
    except ImportError:
        raise Unsupported(HEIC_NEEDS) from None
    image: Image.Image = HeifImageFile(io.BytesIO(content))
    return image


OPENERS: Final[dict[str, Callable[[bytes], Image.Image]]] = {
    "JPEG": lambda content: jpeg_factory(io.BytesIO(content)),
    "PNG": lambda content: PngImageFile(io.BytesIO(content)),
    "WEBP": lambda content: WebPImageFile(io.BytesIO(content)),
    "GIF": lambda content: GifImageFile(io.BytesIO(content)),
    "BMP": _bitmap,
    "TIFF": tiff.opened,
    "PPM": lambda content: PpmImageFile(io.BytesIO(content)),
    "AVIF": _avif,
    "HEIC": _heic,
}
"""By format; each raises what its decoder raises, and Unsupported where it knows that the file may be well."""


def whats_unsupported(kind: str, content: bytes) -> str:
    """Return the sentence for a file that could not be read and is of a kind that its decoder does not know; else nothing."""
    if kind == "JPEG":
        return _of_jpeg(content)
    return tiff.whats_unsupported(content) if kind == "TIFF" else ""


def _of_jpeg(content: bytes) -> str:
    at = 2
    while at + 9 < len(content) and content[at] == 0xFF:
        marker = content[at + 1]
        if marker in LOSSLESS:
            return "a lossless JPEG is not read here: save it as PNG"
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            bits = content[at + 4]
            return "" if bits == 8 else f"a JPEG of {bits} bits a sample is not read here: save it with 8"
        if marker == 0xDA:
            break
        at += 2 + int.from_bytes(content[at + 2 : at + 4], "big") if marker != 0xFF else 1
    return ""
