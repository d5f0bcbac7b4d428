"""Says of a file's first bytes whether they are an image's, and of which format: one rule for classify, score, train and export."""

import os
import re
from typing import Final

from sightline.host.files import read_head

FORMATS: Final = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "HEIC")
"""What a stranger's file may be. JPEG includes MPO, the format of some phones; HEIC needs the extra `heif`, AVIF a Pillow that has it."""

HEAD_BYTES: Final = 512
"""Of a file, from its beginning: enough to tell its format."""

SUFFIXES: Final = frozenset(
    (
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".mpo", ".png", ".apng", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff"),
        *(".ppm", ".pgm", ".pbm", ".pnm", ".avif", ".heic", ".heif", ".hif"),
    )
)
"""File names that promise an image, in lower case. Of such a file a row or a remark is due even if its content is no image."""

UNREAD_IMAGES: Final = frozenset(
    {"JPEG 2000", "JPEG XL", "JPEG XR", "Photoshop", "QOI", "OpenEXR", "Radiance HDR", "DDS", "PAM", "camera raw"}
)
"""Formats of photographs and other raster images that are not read here: they are images, and it is said that they were not read."""

SIGNATURES: Final = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II\0*", "TIFF"),  # two that no specification has, and Pillow reads
    (b"MM*\0", "TIFF"),
    (b"II+\0", "TIFF"),  # BigTIFF
    (b"MM\0+", "TIFF"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
    (b"\xff\x0a", "JPEG XL"),
    (b"II\xbc", "JPEG XR"),
    (b"8BPS\0", "Photoshop"),
    (b"qoif", "QOI"),
    (b"\x76\x2f\x31\x01", "OpenEXR"),
    (b"#?RADIANCE", "Radiance HDR"),
    (b"#?RGBE", "Radiance HDR"),
    (b"DDS |", "DDS"),
    (b"P7\n", "PAM"),
    (b"FUJIFILMCCD-RAW", "camera raw"),
    (b"IIU\0", "camera raw"),
    (b"IIRO", "camera raw"),
    (b"\0\0\x01\0", "ICO"),
    (b"icns", "ICNS"),
    (b"%PDF-", "PDF"),
    (b"%!PS", "PostScript"),
)
"""First bytes, and whose they are, by each format's specification."""

BRANDS: Final = {
    **dict.fromkeys((b"avif", b"avis"), "AVIF"),
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"), "HEIC"),
    b"crx ": "camera raw",
    b"mif1": "HEIC",
    b"msf1": "HEIC",
}
"""Brands of ISO 23008-12 and their successors, the telling ones first: mif1 alone says only that it is an image."""

PNM: Final = re.compile(rb"P[1-6](\s+\d|\s*#)|P[fF]\s+\d")
SVG: Final = re.compile(rb"\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)*(<!DOCTYPE svg|<svg[\s>])", re.DOTALL)
DIB_HEADERS: Final = frozenset({12, 16, 40, 52, 56, 64, 108, 124})
"""Bytes of each kind of header that a bitmap may have."""


class Unsupported(Exception):
    """An image is well as far as anybody can tell, but of a kind that is not read here. Its text is the sentence, without the name."""


class Damaged(Exception):
    """An image's data are not what they should be. Its text says how."""


def format_of(head: bytes) -> str | None:
    """Return the format of a file with these first bytes, at best HEAD_BYTES of them; None if they are no known image's.

    One of FORMATS, or what the format is called that is not read here: JPEG XL, say, or PDF.
    """
    for signature, name in SIGNATURES:
        if head.startswith(signature):
            return name
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[4:8] == b"ftyp":
        return _of_brands(head)
    if _is_bitmap(head):
        return "BMP"
    if PNM.match(head):
        return "PPM"
    return "SVG" if SVG.match(head) else None


def is_image_file(path: str | os.PathLike[str]) -> bool:
    """Return whether a row or a remark is due for this file: its name promises an image, or its content is one, read here or not.

    Icons and documents (ICO, SVG, PDF, PostScript) are none. A file that cannot be read is judged by its name alone.
    """
    if os.path.splitext(path)[1].lower() in SUFFIXES:
        return True
    try:
        kind = format_of(read_head(path, HEAD_BYTES))
    except (OSError, ValueError):
        return False
    return kind in FORMATS or kind in UNREAD_IMAGES


def _of_brands(head: bytes) -> str | None:
    length = min(int.from_bytes(head[:4], "big"), len(head))
    # The major brand, then, after its version, the compatible ones.
    brands = {head[8:12], *(head[at : at + 4] for at in range(16, length - 3, 4))}
    return next((name for brand, name in BRANDS.items() if brand in brands), None)


def _is_bitmap(head: bytes) -> bool:
    at = 14 if head[:2] == b"BM" else 0
    size = int.from_bytes(head[at : at + 4], "little")
    if size not in DIB_HEADERS or len(head) < at + 12:
        return False
    # One plane, always; with as many bits as there are bitmaps of. The oldest header has two bytes for each side.
    planes, bits = (head[at + field : at + field + 2] for field in ((8, 10) if size == 12 else (12, 14)))
    return at == 14 or (planes == b"\1\0" and int.from_bytes(bits, "little") in (1, 4, 8, 16, 24, 32))
