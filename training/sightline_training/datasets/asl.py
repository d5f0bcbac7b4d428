"""Sign Language MNIST: hands that show the letters of American Sign Language, from two CSV files (datamunge, Kaggle 2017, CC0).

The training rows are augmented copies of about 1,700 photos. So there is no validation split: one that is drawn from them would
hold copies of what is learned from.
"""

import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NoReturn

import numpy as np
import numpy.typing as npt

from sightline.console import messages
from sightline.errors import DataError
from sightline.host.files import reason_of
from sightline_training.datasets.dataset import Dataset
from sightline_training.datasets.fetch import fetch_from_kaggle, why_not_fetched
from sightline_training.datasets.image_set import image_set_of

LETTERS: Final = tuple("ABCDEFGHIKLMNOPQRSTUVWXY")
"""The classes 0 to 23. J and Z are movements, which no photo shows; the files number the letters as if J were there."""
SIDE: Final = 28
PIXELS: Final = SIDE * SIDE
HANDLE: Final = "datamunge/sign-language-mnist/versions/1"
SHA256: Final = {
    "sign_mnist_train.csv": "b7ff39ad5f1210fa765ce11aa5f20c2e97fe467ffc22231aac923c863eef75c4",
    "sign_mnist_test.csv": "178c0dd21c4b0e86d58df12f14ea1e9efa795ad19d146802b3b28094a16d56ae",
}
"""Of the files as they are published, not gzipped."""
MAX_ROWS: Final = 250_000
"""The training file has 27,455."""
MAX_LINE_BYTES: Final = 16_384
"""The header has 7,754, a row at most 3,140."""
BLOCK_BYTES: Final = 4 * 1024 * 1024
GZIP_MAGIC: Final = b"\x1f\x8b"
HEADER: Final = b",".join([b"label", *(b"pixel%d" % number for number in range(1, PIXELS + 1))])

_Rows = tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]


def open_asl(root: Path) -> Dataset:
    """27,455 training and 7,172 test images of 28 x 28 grey pixels; `root`/asl holds the files, gzipped (`.gz`) or plain.

    Raises DataError if one is damaged, naming the line, or missing and not to be had.
    """
    folder = root / "asl"
    missing = [name for name in SHA256 if _present(folder, name) is None]
    if missing:
        _fetch(missing, folder)
    train, test = (read_csv(_present(folder, name) or folder / name) for name in SHA256)
    return Dataset(train=image_set_of("asl", "train", *train), test=image_set_of("asl", "test", *test))


def read_csv(path: Path) -> _Rows:
    """Images uint8 [N, 28, 28] and their classes [N] (see LETTERS) from a file with one header and one image a line.

    Raises DataError, naming the file and the first line that is wrong, if that is not what it holds.
    """
    parts: list[_Rows] = []
    line, rows = 1, 0
    try:
        with path.open("rb") as file:
            zipped = file.read(2) == GZIP_MAGIC
            file.seek(0)
            with gzip.open(file) if zipped else file as stream:
                _demand_header(stream.readline(MAX_LINE_BYTES), path)
                for block in _whole_lines(stream):
                    parts.append(_parsed(block, path, line + 1))
                    line += len(parts[-1][1])
                    rows += len(parts[-1][1])
                    if rows > MAX_ROWS:
                        raise DataError(f"{path}: more than {MAX_ROWS:,} rows, the most that such a file may have.")
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        advice = "Delete it to have it fetched again, or put a good copy in its place."
        raise DataError(f"{path}: damaged gzip file ({error}). {advice}") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {reason_of(error)}") from None
    if not parts:
        raise DataError(f"{path}: a header without a row.")
    return np.concatenate([planes for planes, _ in parts]), np.concatenate([labels for _, labels in parts])


def _present(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / f"{name}.gz", folder / name) if path.is_file()), None)


def _demand_header(line: bytes, path: Path) -> None:
    if line.rstrip(b"\r\n") != HEADER:
        begins = ascii(line[:40].decode("latin-1"))
        raise DataError(f"{path}, line 1: expected the header label,pixel1,pixel2,...,pixel{PIXELS}; it begins with {begins}.")


def _whole_lines(stream: io.BufferedIOBase) -> Iterator[bytes]:
    """The rest of the stream in blocks of whole lines, each ended by a line feed alone; a line without end is cut, and so is no row."""
    rest = b""
    while block := stream.read(BLOCK_BYTES):
        lines, _, rest = (rest + block).replace(b"\r\n", b"\n").rpartition(b"\n")
        if lines:
            yield lines + b"\n"
        if len(rest) > MAX_LINE_BYTES:
            break
    if rest:
        yield rest + b"\n"


def _parsed(block: bytes, path: Path, first_line: int) -> _Rows:
    """Images and classes of whole lines, all at once: every number has up to three digits, so three look-ups give it."""
    text = np.frombuffer(block, np.uint8)
    ends = np.flatnonzero((text == ord(",")) | (text == ord("\n")))
    rows = len(ends) // (PIXELS + 1)
    widths = np.diff(ends, prepend=-1) - 1
    # A digit is told by the subtraction: what is below "0" wraps round.
    digits = text - np.uint8(ord("0"))
    shaped = len(ends) == rows * (PIXELS + 1) and widths.min() >= 1 and widths.max() <= 3 and block.count(b"\n") == rows
    if not shaped or np.count_nonzero(digits > 9) != len(ends) or np.any(text[ends[PIXELS :: PIXELS + 1]] != ord("\n")):
        _refuse(block, path, first_line)
    values = digits[ends - 1].astype(np.int16)
    values += 10 * (widths > 1) * digits[ends - 2].astype(np.int16)
    values += 100 * (widths > 2) * digits[ends - 3].astype(np.int16)
    table = values.reshape(rows, PIXELS + 1)
    numbers, pixels = table[:, 0], table[:, 1:]
    if pixels.max() > 255 or not np.isin(numbers, _NUMBERED).all():
        _refuse(block, path, first_line)
    # The number of J is left out.
    classes = np.searchsorted(_NUMBERED, numbers).astype(np.int64)
    return pixels.astype(np.uint8).reshape(rows, SIDE, SIDE), classes


_NUMBERED: Final = np.array([ord(letter) - ord("A") for letter in LETTERS], np.int16)


def _refuse(block: bytes, path: Path, first_line: int) -> NoReturn:
    """Find the first line that is no row, and say what is wrong with it."""
    for at, line in enumerate(block.removesuffix(b"\n").split(b"\n"), first_line):
        values = line.split(b",") if line else []
        if len(values) != PIXELS + 1:
            raise DataError(f"{path}, line {at}: expected {PIXELS + 1} values, a label and {PIXELS} pixels; found {len(values):,}.")
        if _number(values[0]) not in _NUMBERED:
            raise DataError(f"{path}, line {at}: label {_shown(values[0])} is no letter; expected 0 to 24 (A to Y) without 9 (J).")
        for number, value in enumerate(values[1:], 1):
            if not 0 <= _number(value) <= 255:
                raise DataError(f"{path}, line {at}: pixel{number} is {_shown(value)}; expected a whole number from 0 to 255.")
    raise AssertionError(f"{path}: refused, yet every line is good")


def _number(value: bytes) -> int:
    return int(value) if value.isdigit() and len(value) <= 3 else -1


def _shown(value: bytes) -> str:
    text = value[:20].decode("latin-1")
    return text if text.isascii() and text.isprintable() and text.strip() == text != "" else ascii(text)


def _fetch(missing: list[str], folder: Path) -> None:
    messages().print(f"fetching Sign Language MNIST into {folder} ({len(missing)} of {len(SHA256)} files)")
    try:
        fetch_from_kaggle(folder, HANDLE, {name: SHA256[name] for name in missing})
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"Sign Language MNIST is not in {folder} and could not be fetched ({why_not_fetched(error)}). Put {' and '.join(SHA256)}, "
            f"gzipped or not, into {folder}; they are published on Kaggle as {HANDLE.partition('/versions')[0]}."
        ) from None
