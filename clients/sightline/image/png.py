"""Holds a PNG to its checksums: Pillow reads the image data past theirs."""

import zlib
from typing import Final

SIGNATURE_BYTES: Final = 8
CRITICAL: Final = 0x20
"""This bit of a chunk's first letter is clear where nobody may do without the chunk (PNG 1.2, section 3.3)."""


def complaint(content: bytes) -> str:
    """Return what is wrong with the checksums of a PNG that was decoded; empty if they are right.

    Looked at are all chunks up to the end of the image data, then those that could change the image: critical ones and eXIf.
    """
    view = memoryview(content)
    at, data_seen, data_over = SIGNATURE_BYTES, False, False
    while at + 12 <= len(content):
        length = int.from_bytes(view[at : at + 4], "big")
        kind = bytes(view[at + 4 : at + 8])
        end = at + 8 + length
        data_over = data_over or (data_seen and kind != b"IDAT")
        data_seen = data_seen or kind == b"IDAT"
        counts = not data_over or not kind[0] & CRITICAL or kind == b"eXIf"
        if counts and zlib.crc32(view[at + 4 : end]) != int.from_bytes(view[end : end + 4], "big"):
            return f"the checksum of its chunk {kind.decode()} is wrong" if kind.isalpha() else "it holds a chunk without a name"
        if kind == b"IEND":
            break
        at = end + 4
    return ""
