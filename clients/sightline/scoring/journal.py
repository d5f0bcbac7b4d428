"""The journal of a job: what it was begun with, and up to where its rows are safe on the disk.

A line each, with a checksum in front, appended and brought to the disk before the job goes on: the first says what the job is, each
other one is a checkpoint. A last line that was cut off counts for nothing; anything else that is wrong is refused.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from sightline.errors import DataError
from sightline.host.files import MIB, read_bytes, reason_of

Content = TypeVar("Content", "Head", "Checkpoint")

FORMAT: Final = 1
"""Of the journal. A job is resumed only by a Sightline that writes the same."""
MAX_BYTES: Final = 64 * MIB
CHECKSUM_LETTERS: Final = 16


class Head(BaseModel):
    """What a job is: if any of this differs, its rows could."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    format: int = FORMAT
    sightline: str
    pillow: str
    """The version of the library that decodes images."""
    source: str
    model: str
    version: str
    """Of the model."""
    card_sha256: str
    batch_size: int
    """Images of each request; checkpoints lie between requests."""
    max_pixels: int
    rows_as: str
    """The format of the output."""
    top: int
    labelled: bool
    raw_cells: bool
    replaces: bool
    """Whether the job was allowed to replace an output that exists. It changes no row."""


class Counts(BaseModel):
    """What is told at the end."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    broken: int = 0
    remarked: int = 0
    guarded: int = 0
    """Cells in which a formula was made harmless."""
    passed_over: int = 0
    """Files that are no images, and links to folders; known when the listing is complete."""


class Checkpoint(BaseModel):
    """Up to here everything is on the disk."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    rows: int
    bytes: int
    """Of the part."""
    part_sha256: str
    """Of these bytes."""
    listing_sha256: str
    """Of the entries that these rows are for (`ListingHash`)."""
    counts: Counts = Counts()
    complete: bool = False
    """Whether the listing ended here."""


@dataclass(frozen=True)
class Journal:
    """What a journal says."""

    head: Head
    checkpoints: tuple[Checkpoint, ...]
    whole_bytes: int
    """Of its lines that are whole; what follows was cut off."""


def line_of(content: Head | Checkpoint) -> bytes:
    """Return a line of the journal."""
    text = content.model_dump_json().encode()
    return _checksum(text) + b" " + text + b"\n"


def read_journal(path: Path) -> Journal | None:
    """Read a journal; None if there is none, or the job was ended while it wrote the first line. Raises DataError if it is damaged."""
    try:
        content = read_bytes(path, MAX_BYTES)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DataError(f"{path}: the job's journal cannot be read: {reason_of(error)}") from None
    lines = content.split(b"\n")[:-1]  # what follows the last line break was cut off
    if not lines:
        return None
    head = _parsed(path, 1, lines[0], Head)
    checkpoints = tuple(_parsed(path, number, line, Checkpoint) for number, line in enumerate(lines[1:], 2))
    if head.format != FORMAT:
        raise DataError(f"{path}: a journal of format {head.format}; this Sightline reads format {FORMAT}", settings=("overwrite",))
    return Journal(head, checkpoints, sum(len(line) + 1 for line in lines))


def differences(begun: Head, now: Head) -> str:
    """Return what differs between the job that was begun and the one that is to go on: `top was 1 and is 2, …`; empty if nothing."""
    pairs = [(name, getattr(begun, name), getattr(now, name)) for name in Head.model_fields if name != "replaces"]
    return ", ".join(f"{_NAMES.get(name, name)} was {was!r} and is {is_now!r}" for name, was, is_now in pairs if was != is_now)


_NAMES: Final = {
    "sightline": "the version of Sightline",
    "pillow": "the version of Pillow",
    "version": "the model's version",
    "card_sha256": "the model's card",
    "batch_size": "the batch",
    "rows_as": "the format",
}


def _parsed(path: Path, number: int, line: bytes, kind: type[Content]) -> Content:
    checksum, _, text = line.partition(b" ")
    if checksum != _checksum(text):
        raise DataError(f"{path}: line {number} of the job's journal is damaged", settings=("overwrite",))
    try:
        return kind.model_validate_json(text)
    except ValidationError:
        raise DataError(f"{path}: line {number} of the job's journal is of another version of Sightline", settings=("overwrite",)) from None


def _checksum(text: bytes) -> bytes:
    return hashlib.sha256(text).hexdigest()[:CHECKSUM_LETTERS].encode()
