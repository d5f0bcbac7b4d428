"""Holds a PNG to its checksums: Pillow reads the image data past theirs."""

import struct
import zlib
from typing import Final

SIGNATURE_BYTES: Final = 8
HEAD: Final = struct.Struct(">I4s")
"""Of a chunk: the length of its data, and its type."""
SUM: Final = struct.Struct(">I")
CRITICAL: Final = 0x20
"""This bit of a chunk's first letter is clear where nobody may do without the chunk (PNG 1.2, section 3.3)."""


def complaint(content: bytes) -> str:
    """Return what is wrong with the checksums of a PNG that was decoded; empty if they are right.

    Looked at are all chunks up to the end of the image data, then those that could change the image: critical ones and eXIf.
    """
    view = memoryview(content)
    at, data_seen, data_over = SIGNATURE_BYTES, False, False
    while at + 12 <= len(content):
        length, kind = HEAD.unpack_from(content, at)
        end = at + 8 + length
        if kind == b"IDAT":
            data_seen = True
        elif data_seen:
            data_over = True
        counts = not data_over or not kind[0] & CRITICAL or kind == b"eXIf"
        if counts and (end + 4 > len(content) or zlib.crc32(view[at + 4 : end]) != SUM.unpack_from(content, end)[0]):
            return f"the checksum of its chunk {kind.decode()} is wrong" if kind.isalpha() else "it holds a chunk without a name"
        if kind == b"IEND":
            break
        at = end + 4
    return ""
