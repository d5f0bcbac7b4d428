"""Counts what an LZW stream of a GIF or TIFF decodes to, without decoding it: damage changes the count, and their readers do not count."""

from dataclasses import dataclass
from functools import cache
from typing import Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

LONGEST_BITS: Final = 12
"""Of a code; then the table is full (GIF89a, appendix F; TIFF 6.0, section 13)."""

MAX_CLEARS: Final = 20_000
"""A stream that clears its table more often is not counted to its end: some bytes of it could keep a core busy for minutes."""

TABLE: Final = 1 << LONGEST_BITS

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Variant:
    """How the codes are written."""

    value_bits: int
    """Of one value; the first codes have one bit more."""
    first_bit_highest: bool = False
    """As in TIFF; in GIF a code begins at the lowest bit."""
    early: int = 0
    """Codes by which a width ends before it must: 1 in TIFF."""

    @property
    def clear(self) -> int:
        """The code that empties the table; the next one ends the stream."""
        return 1 << self.value_bits


class Decoded(NamedTuple):
    """What became of a stream."""

    length: int
    """Values that it decodes to, as far as it was followed."""
    state: Literal["ended", "out of data", "too long", "bad code", "too many clears"]
    tables: int
    """How often the table was begun anew."""


def decoded_length(data: bytes, variant: Variant, most: int, max_clears: int = MAX_CLEARS) -> Decoded:
    """Return to how many values the codes decode, and how that ended: `too long` soon after `most`.

    Which width the k-th code after a clear has depends on k alone, for each code but the first adds one entry to the table: so they are
    read thousands at a time.
    """
    raw = np.frombuffer(data + bytes(4), np.uint8).astype(np.int64)
    _, offsets = _widths(variant)
    clear, end = variant.clear, variant.clear + 1
    at, total = 0, 0
    for tables in range(1, max_clears + 1):
        lengths = np.zeros(0, np.int64)
        start, block = 0, 512
        while True:
            codes = _codes(raw, at, np.arange(start, start + block), variant)
            stops = np.flatnonzero((codes == clear) | (codes == end))
            run = codes[: stops[0]] if len(stops) else codes
            entries = run - end - 1
            if (entries >= np.arange(start, start + len(run))).any():
                return Decoded(total, "bad code", tables)
            run_lengths = _lengths(entries, lengths, start)
            total += int(run_lengths.sum())
            if start < TABLE:
                lengths = np.concatenate([lengths, run_lengths])
            if total > most:
                return Decoded(total, "too long", tables)
            if len(stops):
                break
            if len(codes) < block:
                return Decoded(total, "out of data", tables)
            start += block
            block = 16 * TABLE if start >= TABLE else TABLE - start
        after = start + int(stops[0]) + 1
        at += int(offsets[min(after, TABLE)]) + max(0, after - TABLE) * LONGEST_BITS
        if codes[stops[0]] == end:
            return Decoded(total, "ended", tables)
    return Decoded(total, "too many clears", max_clears)


@cache
def _widths(variant: Variant) -> tuple[Numbers, Numbers]:
    """Bits of the k-th code after a clear, and at which bit it begins; all after TABLE codes have LONGEST_BITS."""
    widths = [min(LONGEST_BITS, max(variant.value_bits + 1, (variant.clear + 1 + k + variant.early).bit_length())) for k in range(TABLE)]
    return np.array(widths, np.int64), np.concatenate([[0], np.cumsum(widths)])


def _codes(raw: Numbers, at: int, which: Numbers, variant: Variant) -> Numbers:
    """Codes number `which`, counted from a clear that ends at bit `at`; those alone that lie wholly within the data."""
    widths, offsets = _widths(variant)
    width = widths[np.minimum(which, TABLE - 1)]
    place = at + offsets[np.minimum(which, TABLE - 1)] + np.maximum(which - (TABLE - 1), 0) * LONGEST_BITS
    within = place + width <= 8 * (len(raw) - 4)
    place, width = place[within], width[within]
    byte, bit = place >> 3, place & 7
    if variant.first_bit_highest:
        window = (raw[byte] << 16 | raw[byte + 1] << 8 | raw[byte + 2]) >> (24 - bit - width)
    else:
        window = (raw[byte] | raw[byte + 1] << 8 | raw[byte + 2] << 16) >> bit
    codes: Numbers = window & ((1 << width) - 1)
    return codes


def _lengths(entries: Numbers, before: Numbers, start: int) -> Numbers:
    """How many values each code stands for: one, or one more than the code that its entry of the table was made after.

    `entries` is negative for a code of one value, else counts the entries from 0; `before` holds the lengths of the codes before `start`.
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
