"""Holds the strips of a TIFF to what their compression can tell: deflate's checksum, the count of LZW's bytes, libtiff's complaints."""

import zlib
from collections.abc import Iterator
from typing import Final

from sightline.image import libtiff
from sightline.image.lzw import MAX_CLEARS, Variant, decoded_length
from sightline.image.tiff_directory import (
    COMPRESSION,
    FILL_ORDER,
    HEIGHT,
    PHOTOMETRIC,
    PLANAR,
    REVERSED,
    ROWS_PER_STRIP,
    STRIP_OFFSETS,
    TILE_HEIGHT,
    TILE_WIDTH,
    WIDTH,
    Directory,
)

LZW: Final = 5
DEFLATE: Final = frozenset({8, 32946})
LZW_OF_TIFF: Final = Variant(8, first_bit_highest=True, early=1)

PIECE_BYTES: Final = 1 << 20
"""Decompressed at a time."""

SLACK_BYTES: Final = 1 << 16
"""By which a strip may hold more than it must; what holds more is not followed to its end."""


def complaint(directory: Directory) -> str:
    """Return what is wrong with the compressed data of a TIFF; empty if nothing is, or nobody can tell."""
    compression = directory.number(COMPRESSION, 1)
    if compression == 1:
        return ""
    reason = _of_deflate(directory) if compression in DEFLATE else ""
    reason = reason or libtiff.first_complaint(directory.content)
    # With fewer samples of colour a strip has another size.
    return _of_lzw(directory) if not reason and compression == LZW and directory.number(PHOTOMETRIC) != 6 else reason


def _of_deflate(directory: Directory) -> str:
    for strip, sizes in _strips(directory):
        decompressor, length, rest = zlib.decompressobj(), 0, strip
        try:
            while rest and not decompressor.eof and length <= max(sizes) + SLACK_BYTES:
                length += len(decompressor.decompress(rest, PIECE_BYTES))
                rest = decompressor.unconsumed_tail
        except zlib.error as error:
            return str(error)
    return ""


def _of_lzw(directory: Directory) -> str:
    clears_left = MAX_CLEARS
    for strip, sizes in _strips(directory):
        if strip[:1] == b"\0":
            continue  # as it was written before TIFF 6.0, with the bits the other way round
        decoded = decoded_length(strip, LZW_OF_TIFF, max(sizes), clears_left)
        clears_left -= decoded.tables
        if decoded.state == "too many clears" or not clears_left:
            break
        if decoded.state not in ("ended", "out of data") or decoded.length not in sizes:
            return "its compressed data holds another number of bytes than its pixels"
    return ""


def _strips(directory: Directory) -> Iterator[tuple[bytes, tuple[int, int]]]:
    """Give each strip or tile with the bytes that it must decode to, and may: some write the last strip as long as the others."""
    bits = directory.bits
    samples = sum(bits) if directory.number(PLANAR, 1) != 2 else bits[0]
    width, height = directory.number(WIDTH), directory.number(HEIGHT)
    if STRIP_OFFSETS in directory.entries:
        rows = min(directory.number(ROWS_PER_STRIP, height), height) or height
        in_plane = -(-height // rows)
        row_bytes = (width * samples + 7) // 8
    else:
        rows, in_plane = directory.number(TILE_HEIGHT), 0
        row_bytes = (directory.number(TILE_WIDTH) * samples + 7) // 8
    reversed_bits = directory.number(FILL_ORDER, 1) == 2
    for index, (start, length) in enumerate(directory.strips()):
        last = in_plane and index % in_plane == in_plane - 1
        strip = directory.content[start : start + length]
        needed = height - rows * (in_plane - 1) if last else rows
        yield strip.translate(REVERSED) if reversed_bits else strip, (needed * row_bytes, rows * row_bytes)
