"""Reads the first directory of a TIFF, classic or BigTIFF of either byte order, and writes it anew where Pillow could not read it."""

from dataclasses import dataclass, replace
from typing import Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, FILL_ORDER, STRIP_OFFSETS = 256, 257, 258, 259, 262, 266, 273
SAMPLES, PLANAR, TILE_OFFSETS, INK_SET, EXTRA_SAMPLES, SAMPLE_FORMAT = 277, 284, 324, 332, 338, 339
ROWS_PER_STRIP, STRIP_LENGTHS, TILE_WIDTH, TILE_HEIGHT, TILE_LENGTHS, YCBCR_SUBSAMPLING = 278, 279, 322, 323, 325, 530
"""Tags (TIFF 6.0)."""

TYPES: Final = {1: "u1", 2: "u1", 3: "u2", 4: "u4", 5: "u4", 6: "i1", 7: "u1", 8: "i2", 9: "i4", 10: "i4", 11: "f4", 12: "f8", 13: "u4"}
BIG_TYPES: Final = {16: "u8", 17: "i8", 18: "u8"}
"""NumPy's name of each type of a value (TIFF 6.0, section 2; BigTIFF). A fraction, 5 or 10, has two."""

AS_CLASSIC: Final = {16: 4, 17: 9, 18: 13}
"""By which type of 32 bits a classic TIFF holds one of BigTIFF's: no file here has more bytes than that can count."""

POINTERS: Final = frozenset({330, 34665, 34853, 40965})
"""Tags that lead to further directories, in the layout of the old file: they are left out of a new one."""

MAX_ENTRIES: Final = 4096
"""Of a directory; the specification knows some hundred tags."""

MAX_STRIPS: Final = 1_000_000
"""Or tiles: as many as the largest image has of 16 x 16 pixels, and more."""

MAX_SAMPLES: Final = 16
"""Of a pixel."""

MAX_VALUES: Final = 64
"""Of one tag that decides how samples are read."""

REVERSED: Final = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
"""Each byte with its bits in the other order."""

Order = Literal["<", ">"]


class Entry(NamedTuple):
    """A tag's values, unread: of which type, how many."""

    kind: int
    values: int
    at: int
    """Where in the file they begin."""


@dataclass(frozen=True, eq=False)
class Directory:
    """The first directory of a TIFF."""

    content: bytes
    order: Order
    is_big: bool
    entries: dict[int, Entry]
    """By tag; of two with one tag the first. What does not lie within the file is left out."""

    def numbers(self, tag: int, default: tuple[int, ...] = ()) -> tuple[int, ...]:
        """Return the whole numbers of a tag, at most MAX_VALUES; `default` if it is not there or has others."""
        entry = self.entries.get(tag)
        if entry is None or entry.kind in (2, 5, 10, 11, 12):
            return default
        return tuple(int(value) for value in self._values(entry._replace(values=min(entry.values, MAX_VALUES))))

    def number(self, tag: int, default: int = 0) -> int:
        """Return the first whole number of a tag."""
        return (self.numbers(tag) or (default,))[0]

    @property
    def bits(self) -> tuple[int, ...]:
        """Bits of each sample of a pixel: where the file names one number, it is that of all."""
        bits, samples = self.numbers(BITS, (1,)), self.number(SAMPLES, 1)
        return bits * samples if len(bits) == 1 and 1 < samples <= MAX_SAMPLES else bits

    def strips(self) -> list[tuple[int, int]]:
        """Return start and length in bytes of each strip or tile. Raises ValueError if they are not there, or more than the file."""
        tags = (STRIP_OFFSETS, STRIP_LENGTHS) if STRIP_OFFSETS in self.entries else (TILE_OFFSETS, TILE_LENGTHS)
        if not set(tags) <= self.entries.keys():
            raise ValueError("its tags do not say where its pixels are")
        offsets, lengths = (self._values(self.entries[tag]).astype(np.int64) for tag in tags)
        if len(offsets) > MAX_STRIPS or len(offsets) != len(lengths) or lengths.min() < 0 or int(lengths.sum()) > len(self.content):
            raise ValueError("its strips hold more than the file does")
        return list(zip(offsets.tolist(), lengths.tolist(), strict=True))

    def with_bits_reversed(self) -> "Directory":
        """Return the same over a file whose strips or tiles have the bits of each byte in the other order. Raises ValueError."""
        body = bytearray(self.content)
        for start, length in self.strips():
            body[start : start + length] = body[start : start + length].translate(REVERSED)
        return replace(self, content=bytes(body))

    def rewritten(self, changes: dict[int, int], order: Order | None = None) -> bytes:
        """Return the file as a classic TIFF with this directory at its end, `changes` of tags to a SHORT each, and no page after it.

        `order` is the new one of the tags; samples stay as they are. Raises ValueError if the values are more than the file itself.
        """
        order = order or self.order
        endian: Literal["little", "big"] = "little" if order == "<" else "big"
        # Tags begin at even places.
        body = bytearray(self.content) + bytes(len(self.content) % 2)
        rows = []
        for tag, entry in sorted(self.entries.items()):
            if tag in POINTERS:
                continue
            kind, values = entry.kind, self._values(entry)
            if tag in changes:
                kind, values = 3, np.full(entry.values, changes[tag])
            kind = AS_CLASSIC.get(kind, kind)
            packed = values.astype(order + TYPES[kind]).tobytes()
            if len(packed) > 4:
                place = len(body)
                body += packed + bytes(len(packed) % 2)
                packed = place.to_bytes(4, endian)
            if len(body) > 3 * len(self.content):
                raise ValueError("its tags hold more than the file does")
            rows.append(tag.to_bytes(2, endian) + kind.to_bytes(2, endian) + entry.values.to_bytes(4, endian) + packed.ljust(4, b"\0"))
        body[:8] = (b"II*\0" if order == "<" else b"MM\0*") + len(body).to_bytes(4, endian)
        return bytes(body + len(rows).to_bytes(2, endian) + b"".join(rows) + bytes(4))

    def _values(self, entry: Entry) -> npt.NDArray[np.generic]:
        return np.frombuffer(self.content, self.order + (TYPES | BIG_TYPES)[entry.kind], _items(entry), entry.at)


def read_directory(content: bytes) -> Directory:
    """Return the first directory of a TIFF. Raises ValueError if there is none within the file."""
    order: Order = ">" if content[:2] == b"MM" else "<"
    endian: Literal["little", "big"] = "little" if order == "<" else "big"
    is_big = content[2:4] in (b"+\0", b"\0+")

    def number(at: int, length: int) -> int:
        return int.from_bytes(content[at : at + length], endian)

    offset_bytes, head_bytes, count_bytes, entry_bytes = (8, 8, 8, 20) if is_big else (4, 4, 2, 12)
    start = number(head_bytes, offset_bytes)
    first = start + count_bytes
    count = number(start, count_bytes)
    if not count or first + entry_bytes > len(content):
        raise ValueError("it has no directory of tags")
    if count > MAX_ENTRIES:
        raise ValueError(f"its directory claims {count:,} tags")
    entries: dict[int, Entry] = {}
    for at in range(first, min(first + count * entry_bytes, len(content) - entry_bytes + 1), entry_bytes):
        entry = Entry(number(at + 2, 2), number(at + 4, offset_bytes), at + 4 + offset_bytes)
        name = (TYPES | BIG_TYPES).get(entry.kind)
        if name is None or not entry.values:
            continue
        length = _items(entry) * int(name[1])
        if length > offset_bytes:
            entry = entry._replace(at=number(entry.at, offset_bytes))
        if entry.at + length <= len(content):
            entries.setdefault(number(at, 2), entry)
    return Directory(content, order, is_big, entries)


def _items(entry: Entry) -> int:
    """How many numbers the values are made of: a fraction of two."""
    return entry.values * (2 if entry.kind in (5, 10) else 1)
