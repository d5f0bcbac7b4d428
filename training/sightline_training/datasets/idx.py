"""Reads IDX, MNIST's file format, without trusting it: magic, dimensions and length must all fit before a byte counts as data.

The format is described at the end of http://yann.lecun.com/exdb/mnist/: two zero bytes, a type byte (8 is unsigned byte), the
number of dimensions, each dimension as a big-endian 32-bit number, then the data.
"""

import gzip
import math
import zlib
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from sightline.errors import DataError
from sightline.host.files import reason_of

MAX_BYTES: Final = 512 * 1024 * 1024
"""The most data that one file may announce; MNIST's largest has 47 million bytes."""

GZIP_MAGIC: Final = b"\x1f\x8b"


def read_idx(path: Path, dimensions: int) -> npt.NDArray[np.uint8]:
    """The bytes of an IDX file, gzipped or plain, as an array of so many dimensions.

    Raises DataError, naming the file, if it cannot be read, is no IDX file of unsigned bytes with that number of dimensions, or
    holds more or fewer bytes than its header announces.
    """
    header_bytes = 4 + 4 * dimensions
    try:
        with path.open("rb") as file:
            zipped = file.read(2) == GZIP_MAGIC
            file.seek(0)
            with gzip.open(file) if zipped else file as stream:
                header = stream.read(header_bytes)
                shape = _shape(header, dimensions, path)
                size = math.prod(shape)
                # One byte more than announced, so that a file that is too long is noticed and a bomb is not unpacked.
                content = stream.read(size + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: damaged gzip file ({error}). {_ADVICE}") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {reason_of(error)}") from None
    if len(content) != size:
        held = f"only {len(content):,}" if len(content) < size else "more"
        raise DataError(f"{path}: the header announces {' x '.join(map(str, shape))} = {size:,} bytes, the file holds {held}. {_ADVICE}")
    return np.frombuffer(content, np.uint8).reshape(shape)


_ADVICE = "Delete it to have it fetched again, or put a good copy in its place."


def _shape(header: bytes, dimensions: int, path: Path) -> tuple[int, ...]:
    magic = bytes([0, 0, 8, dimensions])
    if len(header) < 4 + 4 * dimensions:
        raise DataError(f"{path}: too short for an IDX header ({len(header)} bytes). {_ADVICE}")
    if header[:4] != magic:
        raise DataError(
            f"{path}: no IDX file of {dimensions}-dimensional bytes: it begins with {header[:4].hex()}, not with {magic.hex()}. {_ADVICE}"
        )
    shape = tuple(int.from_bytes(header[at : at + 4], "big") for at in range(4, len(header), 4))
    if not 0 < math.prod(shape) <= MAX_BYTES:
        raise DataError(f"{path}: the header announces {' x '.join(map(str, shape))} bytes, which no file of this kind has. {_ADVICE}")
    return shape
