"""Holds a GIF's first frame to its own count of pixels, which Pillow does not, and leaves transparent what the frame does not cover."""

from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.GifImagePlugin import GifImageFile

LONGEST_BITS: Final = 12
"""Of a code; then the table is full (GIF89a, appendix F)."""

MAX_CLEARS: Final = 20_000
"""A stream that clears its table more often is not checked to its end: some bytes of it could keep a core busy for minutes."""

PAD_PIXELS: Final = 8
"""Fewer than so many pixels too many can be the last byte's unused bits, where the code that ends the stream was left out."""

Codes = npt.NDArray[np.int64]


def complaint(content: bytes) -> str:
    """Return what is wrong with the compressed data of the first frame of a GIF that was decoded; empty if it is well.

    The codes must exist when they are used, and stand for as many pixels as the frame has. GIF has no checksum: a changed code of
    the same length, or a changed colour, is not seen.
    """
    width, height, code_bits, data = _first_frame(content)
    if not 1 <= code_bits < LONGEST_BITS:
        return f"its codes have {code_bits} bits"
    pixels, ended = _pixels(data, code_bits, width * height)
    if pixels is None:
        return "" if ended else "its compressed data holds a code that means nothing"
    surplus = pixels - width * height
    if surplus == 0 or (not ended and 0 < surplus < PAD_PIXELS):
        return ""
    return f"its compressed data holds {'more' if surplus > 0 else 'fewer'} pixels than its {width} x {height}"


def uncovered_is_transparent(image: GifImageFile) -> Image.Image:
    """Return the first frame with nothing where it does not cover the canvas, as browsers show it; Pillow fills in its first colour."""
    box = image.dispose_extent
    # With a transparent colour of its own, Pillow has laid that around it.
    if box is None or image.tell() or "transparency" in image.info or box == (0, 0, *image.size):
        return image
    covered = Image.new("L", image.size, 0)
    covered.paste(255, box)
    shown = image.convert("RGBA")
    shown.putalpha(covered)
    return shown


def _first_frame(content: bytes) -> tuple[int, int, int, bytes]:
    """Width, height, the least bits of a code less one, and the compressed data of the first frame."""

    def colours(flags: int) -> int:
        return 3 << (flags & 7) + 1 if flags & 128 else 0

    def after_blocks(at: int) -> int:
        while length := content[at]:
            at += 1 + length
        return at + 1

    at = 13 + colours(content[10])
    while content[at] != ord(","):
        # An extension; Pillow steps over what is neither, byte by byte.
        at = after_blocks(at + 2) if content[at] == ord("!") else at + 1
    width, height = (int.from_bytes(content[at + field : at + field + 2], "little") for field in (5, 7))
    at += 10 + colours(content[at + 9])
    code_bits, at = content[at], at + 1
    blocks = []
    while at < len(content) and (length := content[at]):
        blocks.append(content[at + 1 : at + 1 + length])
        at += 1 + length
    return width, height, code_bits, b"".join(blocks)


def _pixels(data: bytes, code_bits: int, most: int) -> tuple[int | None, bool]:
    """How many pixels the codes stand for, and whether the code that ends them was there.

    None if a code has no meaning; None and True if there are too many clear codes to go on. Stops soon after `most`.
    """
    raw = np.frombuffer(data + bytes(4), np.uint8).astype(np.int64)
    clear, end = 1 << code_bits, (1 << code_bits) + 1
    # Which width the k-th code after a clear has depends on k alone: each but the first adds one entry to the table.
    table = 1 << LONGEST_BITS
    widths = np.array([min(LONGEST_BITS, max(code_bits + 1, (clear + 1 + k).bit_length())) for k in range(table)], np.int64)
    offsets = np.concatenate([[0], np.cumsum(widths)])
    at, total = 0, 0
    for _ in range(MAX_CLEARS):
        lengths = np.zeros(0, np.int64)
        start, block = 0, 512
        while True:
            codes = _codes(raw, at, np.arange(start, start + block), widths, offsets, 8 * len(data))
            stops = np.flatnonzero((codes == clear) | (codes == end))
            run = codes[: stops[0]] if len(stops) else codes
            entries = run - end - 1
            if (entries >= np.arange(start, start + len(run))).any():
                return None, False
            run_lengths = _lengths(entries, lengths, start)
            total += int(run_lengths.sum())
            if len(lengths) < table:
                lengths = np.concatenate([lengths, run_lengths])
            if total > most + PAD_PIXELS or (len(codes) < block and not len(stops)):
                return total, False
            if len(stops):
                break
            start += block
            block = 16 * table if start >= table else table - start
        after = start + int(stops[0]) + 1
        at += int(offsets[after] if after <= table else offsets[table] + (after - table) * LONGEST_BITS)
        if codes[stops[0]] == end:
            return total, True
    return None, True


def _codes(raw: Codes, at: int, which: Codes, widths: Codes, offsets: Codes, bits: int) -> Codes:
    """Codes number `which`, counted from a clear that ends at bit `at`; those alone that lie wholly within the data."""
    last = len(widths) - 1
    width = widths[np.minimum(which, last)]
    place = at + offsets[np.minimum(which, last)] + np.maximum(which - last, 0) * LONGEST_BITS
    within = place + width <= bits
    place, width = place[within], width[within]
    byte = place >> 3
    window = raw[byte] | raw[byte + 1] << 8 | raw[byte + 2] << 16
    return (window >> (place & 7)) & ((1 << width) - 1)


def _lengths(entries: Codes, before: Codes, start: int) -> Codes:
    """How many pixels each code stands for: one, or one more than the code that its entry of the table was made after.

    `entries` is negative for a code of one pixel, else counts the entries from 0; `before` holds the lengths of the codes before `start`.
    """
    lengths = np.ones(len(entries), np.int64)
    known = (entries >= 0) & (entries < start)
    lengths[known] += before[entries[known]]
    # The others follow from each other: each round doubles how far back is looked.
    parents = np.where(entries >= start, entries - start, -1)
    while (following := parents >= 0).any():
        ancestors = parents[following]
        lengths[following] += lengths[ancestors]
        parents[following] = parents[ancestors]
    return lengths
