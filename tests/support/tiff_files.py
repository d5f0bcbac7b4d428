"""Writes TIFFs of any layout that TIFF 6.0 allows, from the specification: what no library writes, a camera or scanner may."""

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[Any]


@dataclass(frozen=True)
class Layout:
    """How samples are stored. The fields are tags of TIFF 6.0, by their names there."""

    photometric: int
    bits: int
    samples: int = 1
    order: Literal["<", ">"] = "<"
    compression: int = 1
    """1 none, 8 deflate, 32773 PackBits."""
    planar: int = 1
    fill_order: int = 1
    predictor: int = 1
    extra_samples: tuple[int, ...] = ()
    sample_format: int = 1
    tile: int = 0
    """Side of a tile, or 0 for strips of 7 rows."""
    big: bool = False


def tiff(samples: Samples, layout: Layout, more: Sequence[tuple[int, int, Sequence[int]]] = ()) -> bytes:
    """Encode samples (H, W, samples), whole numbers or floats, as `layout` says. `more` holds further tags: number, type, values."""
    height, width = samples.shape[:2]
    planes = [samples] if layout.planar == 1 else [samples[..., index : index + 1] for index in range(layout.samples)]
    pieces = [_encoded(piece, layout) for plane in planes for piece in _pieces(plane, layout.tile)]
    tags: list[tuple[int, int, Sequence[int]]] = [
        (256, 4, [width]),
        (257, 4, [height]),
        (258, 3, [layout.bits] * layout.samples),
        (259, 3, [layout.compression]),
        (262, 3, [layout.photometric]),
        (266, 3, [layout.fill_order]),
        (277, 3, [layout.samples]),
        (284, 3, [layout.planar]),
        (339, 3, [layout.sample_format] * layout.samples),
        *more,
    ]
    if layout.predictor != 1:
        tags.append((317, 3, [layout.predictor]))
    if layout.extra_samples:
        tags.append((338, 3, layout.extra_samples))
    offset = 16 if layout.big else 8
    offsets = [offset + sum(map(len, pieces[:index])) for index in range(len(pieces))]
    lengths = [len(piece) for piece in pieces]
    if layout.tile:
        tags += [(322, 4, [layout.tile]), (323, 4, [layout.tile]), (324, 4, offsets), (325, 4, lengths)]
    else:
        tags += [(278, 4, [7]), (273, 4, offsets), (279, 4, lengths)]
    return _file(b"".join(pieces), tags, layout)


def _pieces(plane: Samples, tile: int) -> list[Samples]:
    height, width = plane.shape[:2]
    if not tile:
        return [plane[top : top + 7] for top in range(0, height, 7)]
    padded = np.pad(plane, ((0, -height % tile), (0, -width % tile), (0, 0)))
    return [padded[top : top + tile, left : left + tile] for top in range(0, height, tile) for left in range(0, width, tile)]


def _encoded(piece: Samples, layout: Layout) -> bytes:
    if layout.predictor == 2:
        piece = piece.copy()
        piece[:, 1:] -= piece[:, :-1].copy()
    rows = piece.reshape(len(piece), -1)
    if layout.sample_format == 3 or layout.bits in (8, 16, 32, 64):
        kind = {1: "u", 2: "i", 3: "f", 4: "u"}[layout.sample_format]
        data = rows.astype(f"{layout.order}{kind}{layout.bits // 8}").tobytes()
    else:
        bits = (rows[..., None].astype(np.uint32) >> np.arange(layout.bits - 1, -1, -1, dtype=np.uint32)) & 1
        data = np.packbits(bits.reshape(len(rows), -1).astype(np.uint8), axis=1).tobytes()
    if layout.compression == 8:
        data = zlib.compress(data)
    elif layout.compression == 32773:
        data = b"".join(bytes([len(part) - 1]) + part for part in (data[at : at + 128] for at in range(0, len(data), 128)))
    if layout.fill_order == 2:
        data = np.packbits(np.unpackbits(np.frombuffer(data, np.uint8)), bitorder="little").tobytes()
    return data


def _file(data: bytes, tags: list[tuple[int, int, Sequence[int]]], layout: Layout) -> bytes:
    order = layout.order
    data += bytes(len(data) % 2)
    head = 16 if layout.big else 8
    room, count, number = (8, "Q", "Q") if layout.big else (4, "H", "I")
    outside = head + len(data)
    rows, values_outside = b"", b""
    for tag, kind, values in sorted(tags):
        packed = struct.pack(f"{order}{len(values)}{ {1: 'B', 3: 'H', 4: 'I'}[kind] }".replace(" ", ""), *values)
        if len(packed) > room:
            place = struct.pack(order + number, outside + len(values_outside))
            values_outside += packed + bytes(len(packed) % 2)
            packed = place
        rows += struct.pack(f"{order}HH{number}", tag, kind, len(values)) + packed.ljust(room, b"\0")
    directory = struct.pack(order + count, len(tags)) + rows + bytes(room)
    mark = b"II" if order == "<" else b"MM"
    at = outside + len(values_outside)
    opening = struct.pack(f"{order}HHHQ", 43, 8, 0, at) if layout.big else struct.pack(f"{order}HI", 42, at)
    return mark + opening + data + values_outside + directory
