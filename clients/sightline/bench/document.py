"""Keeps what was measured: one JSON document, its rows as CSV, and the plot; and reads such a document again."""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Final, Literal

from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json, to_json

from sightline.bench.end_to_end import EndToEnd
from sightline.bench.environment import Environment
from sightline.bench.plot import demand_matplotlib, throughput_against_latency
from sightline.bench.settings import Measurement
from sightline.errors import MachineError, UsageError
from sightline.host.files import read_text, reason_of, write_atomically
from sightline.host.text import first_problem, one_line

DOCUMENT, ROWS, WAYS, PNG, SVG = "bench.json", "rows.csv", "end_to_end.csv", "bench.png", "bench.svg"

MAX_BYTES: Final = 16 * 1024 * 1024
"""Of a document that is read: hundreds of thousands of rows."""


@dataclass(frozen=True)
class BenchDocument:
    """What one `sightline bench` measured."""

    schema: Literal[1]
    measured_at: str
    """ISO 8601, UTC; "" in results of before there was a document."""
    images: int
    """That were sent."""
    source: str
    """Where they are from."""
    window_s: float
    environment: Environment | None
    """None in results of before there was a document."""
    rows: tuple[Measurement, ...]
    end_to_end: tuple[EndToEnd, ...] = ()

    @property
    def subject(self) -> str:
        """What was measured, as `mnist version 3`; "" where nobody knows."""
        served = self.environment.served if self.environment is not None else ()
        return f"{served[0].model} version {served[0].version}" if served else ""


def demand_writable(out: Path) -> None:
    """Make sure, before minutes are spent, that a result can be written to `out`, a .json or .csv file or else a folder, which is made.

    Raises MissingExtra if a folder, with its plot, is wanted without matplotlib; UsageError for a place that cannot be one; MachineError
    if the folder cannot be made.
    """
    if not _is_folder(out):
        if out.is_dir():
            raise UsageError(f"{out}: this is a folder: name a file, or a folder without the ending {out.suffix}")
        if not out.parent.is_dir():
            raise UsageError(f"{out.parent}: there is no such folder for the result")
        return
    demand_matplotlib()
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out}: this is a file that is neither .json nor .csv: name such a file, or a folder")
    try:
        out.mkdir(exist_ok=True)
    except OSError as error:
        raise MachineError(f"{out}: the folder for the result cannot be made: {reason_of(error)}") from None


def write(document: BenchDocument, out: Path) -> None:
    """Write the document to `out`: as a .json file, its rows as a .csv file, or all of it into a folder, with the plot as PNG and SVG.

    Each file replaces its predecessor in one step. Raises MachineError if it cannot be written.
    """
    contents: dict[Path, str | bytes]
    if not _is_folder(out):
        contents = {out: json_text(document) if out.suffix == ".json" else csv_text(Measurement, document.rows)}
    else:
        contents = {
            out / ROWS: csv_text(Measurement, document.rows),
            out / WAYS: csv_text(EndToEnd, document.end_to_end),
            out / PNG: throughput_against_latency(document.rows, document.subject, "png"),
            out / SVG: throughput_against_latency(document.rows, document.subject, "svg"),
            out / DOCUMENT: json_text(document),
        }
    try:
        for file, content in contents.items():
            write_atomically(file, content)
    except OSError as error:
        raise MachineError(f"{out}: the result cannot be written: {reason_of(error)}") from None


def read(place: Path) -> BenchDocument:
    """Read a result: a document, the folder that holds one, or a list of rows, as earlier versions wrote it. Raises UsageError."""
    file = place / DOCUMENT if place.is_dir() else place
    try:
        text = read_text(file, MAX_BYTES)
    except OSError as error:
        raise UsageError(f"{file}: the result cannot be read: {reason_of(error)}") from None
    try:
        if isinstance(from_json(text), list):
            rows = TypeAdapter(tuple[Measurement, ...]).validate_json(text)
            return BenchDocument(1, "", 0, "", 0.0, None, rows)
        return TypeAdapter(BenchDocument).validate_json(text)
    except ValidationError as error:
        raise UsageError(f"{file}: this is no result of `sightline bench --out`: {first_problem(error)}") from None
    except ValueError as error:
        raise UsageError(f"{file}: this is no result of `sightline bench --out`: {one_line(error)}") from None


def json_text(document: BenchDocument) -> str:
    """Return the document as JSON."""
    return to_json(document, indent=2).decode() + "\n"


def csv_text(kind: type[Measurement | EndToEnd], rows: Sequence[Measurement | EndToEnd]) -> str:
    """Return rows as CSV, a column for each field of their `kind`."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [each.name for each in fields(kind)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(_rounded(asdict(row).items()) for row in rows)
    return text.getvalue()


def _rounded(items: Iterable[tuple[str, str | int | float]]) -> dict[str, str | int]:
    return {name: f"{value:.4f}" if isinstance(value, float) else value for name, value in items}


def _is_folder(out: Path) -> bool:
    return out.suffix not in (".json", ".csv")
