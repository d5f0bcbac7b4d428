"""Finds the orientation that a damaged EXIF block still holds, entry by entry, as libexif does; Pillow gives up at the first bad one."""

import re
from contextlib import suppress
from typing import Final, Literal

from PIL import Image

ORIENTATION: Final = 274
"""The tag (Exif 2.32)."""

INTEGERS: Final = {1: 1, 3: 2, 4: 4}
"""Bytes of each type that a whole number may have: BYTE, SHORT, LONG (TIFF 6.0, section 2)."""

SIDEWAYS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
"""From upright back to how the file with that orientation stores it."""


def settle_orientation(image: Image.Image, *, is_callers: bool = False) -> Image.Image:
    """Return an image whose `getexif()` tells the orientation that its EXIF block holds, where Pillow does not find it there.

    That is the same image, but a copy if `is_callers`, which nobody may change.
    """
    block = image.info.get("exif")
    if not isinstance(block, bytes):
        return image
    stored = orientation_in(block)
    if stored is None or _known_to_pillow(block):
        return image
    settled = image.copy() if is_callers else image
    # A damaged block makes Pillow raise nearly anything the first time; from then on it answers with what it has.
    with suppress(Exception):
        settled.getexif()
    settled.getexif()[ORIENTATION] = stored
    return settled


def _known_to_pillow(block: bytes) -> bool:
    """Whether Pillow finds an orientation in the block by itself: then what `getexif()` says counts, as the caller may have changed it."""
    exif = Image.Exif()
    with suppress(Exception):  # as above
        exif.load(block)
    return ORIENTATION in exif


def orientation_in(block: bytes) -> int | None:
    """Return the value of the first orientation tag in the first directory of an EXIF block; None if there is none that can be read."""
    block = re.sub(rb"^(Exif\x00\x00){1,2}", b"", block)
    if block[:2] not in (b"II", b"MM"):
        return None
    order: Literal["little", "big"] = "little" if block[:2] == b"II" else "big"

    def number(at: int, length: int) -> int:
        return int.from_bytes(block[at : at + length], order)

    directory = number(4, 4)
    for entry in range(directory + 2, min(directory + 2 + 12 * number(directory, 2), len(block) - 11), 12):
        if number(entry, 2) == ORIENTATION:
            length = INTEGERS.get(number(entry + 2, 2))
            if length is not None and number(entry + 4, 4) == 1:
                return number(entry + 8, length)
    return None
