"""Rows as bytes and back: CSV, and JSON objects a line. Parquet is written from the latter (`sightline.scoring.parquet`)."""

import csv
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sightline.errors import DataError, UsageError
from sightline.host.files import reason_of
from sightline.host.spreadsheet import spreadsheet_original, spreadsheet_safe
from sightline.host.text import first_problem, one_line
from sightline.scoring.rows import Ranked, Row

FORMATS: Final[dict[str, Literal["csv", "jsonl", "parquet"]]] = {".csv": "csv", ".jsonl": "jsonl", ".parquet": "parquet"}
"""The end of a file's name → its format."""
MAX_ROW_BYTES: Final = 1024 * 1024
"""Of one row that is read back: names, labels and an error's sentence are bounded by far less."""
RAW_START: Final = '"image",'
"""How a CSV file begins whose cells are written as they are; where they are guarded, the first name has no quotes."""


@dataclass(frozen=True)
class RowFormat:
    """How rows are written: all that a row's bytes depend on besides the row."""

    kind: Literal["csv", "jsonl"]
    top: int
    """Classes of each row."""
    labelled: bool
    """Whether rows have `truth`."""
    raw_cells: bool = False
    """Whether CSV's cells are written as they are, also where a spreadsheet would take them for formulas."""

    def header(self) -> bytes:
        """Return what stands before the rows."""
        if self.kind != "csv":
            return b""
        line = _csv_line(self.columns())
        return (line.replace("image,", RAW_START, 1) if self.raw_cells else line).encode()

    def columns(self) -> list[str]:
        """Return the names of CSV's columns."""
        more = [column for rank in range(2, self.top + 1) for column in (f"label_{rank}", f"probability_{rank}")]
        last = ["truth"] if self.labelled else []
        return ["image", "label", "probability", *more, "version", "error", "remark", "error_kind", *last]

    def encoded(self, row: Row) -> tuple[bytes, int]:
        """Return the bytes of a row, and in how many of its cells a formula was made harmless."""
        return self._as_csv(row) if self.kind == "csv" else (_as_json(row, labelled=self.labelled), 0)

    def _as_csv(self, row: Row) -> tuple[bytes, int]:
        classes = [cell for each in row.top for cell in (each.label, f"{each.probability:.6f}")]
        last = [row.truth or ""] if self.labelled else []
        cells = [row.image, *(classes or [""] * (2 * self.top)), row.version, row.error, row.remark, row.error_kind, *last]
        if self.raw_cells:
            return _csv_line(cells).encode(), 0
        harmless = [spreadsheet_safe(cell) for cell in cells]
        return _csv_line(harmless).encode(), sum(map(str.__ne__, cells, harmless))


def format_of(out: Path) -> Literal["csv", "jsonl", "parquet"]:
    """Return the format that a file's name asks for. Raises UsageError if it asks for none."""
    kind = FORMATS.get(out.suffix.lower())
    if kind is None:
        raise UsageError(
            f"{out}: rows are written as CSV, JSON lines or Parquet, so the file's name must end with .csv, .jsonl or .parquet"
        )
    return kind


def rows_of(out: Path) -> Iterator[Row]:
    """Read the rows of a finished job back, whatever their format; an apostrophe before a formula of CSV is taken off.

    Raises UsageError for another kind of file, MissingExtra for Parquet without pyarrow, DataError if the file cannot be read or is no
    output of a job, naming the row.
    """
    kind = format_of(out)
    if kind == "parquet":
        from sightline.scoring.parquet import rows_of_parquet

        return rows_of_parquet(out)
    return _rows_of_text(out, read_csv if kind == "csv" else read_json_lines)


def _rows_of_text(out: Path, read: Callable[[IO[str]], Iterator[Row]]) -> Iterator[Row]:
    number = 0
    try:
        with out.open(encoding="utf-8", newline="") as file:
            for row in read(file):
                yield row
                number += 1
    except OSError as error:
        raise DataError(f"{out}: the rows cannot be read: {reason_of(error)}") from None
    except (ValueError, csv.Error) as error:
        raise DataError(f"{out}: row {number + 1} is none that a job writes: {one_line(error)}") from None


def read_csv(file: IO[str]) -> Iterator[Row]:
    """Read rows of CSV. Raises ValueError or csv.Error."""
    start = file.read(len(RAW_START))
    file.seek(0)
    cleaned: Callable[[str], str] = str if start == RAW_START else spreadsheet_original
    lines = csv.reader(_bounded(file), strict=True)
    columns = next(lines, [])
    labelled = columns[-1:] == ["truth"]
    top = sum(column.startswith("probability") for column in columns)
    if not top or columns != RowFormat("csv", top, labelled).columns():
        raise ValueError("the first line does not name the columns of a job")
    for cells in lines:
        if len(cells) != len(columns):
            raise ValueError(f"{len(cells)} cells instead of {len(columns)}")
        texts = [cleaned(cell) for cell in cells]
        classes, others = texts[1 : 1 + 2 * top], texts[1 + 2 * top :]
        ranked = tuple(Ranked(label, float(p)) for label, p in zip(classes[::2], classes[1::2], strict=True) if p)
        version, error, remark, error_kind = others[:4]
        yield Row(texts[0], ranked, version, error_kind, error, remark, (others[4] or None) if labelled else None)


def read_json_lines(file: IO[str]) -> Iterator[Row]:
    """Read rows of JSON, one object a line. Raises ValueError."""
    for line in _bounded(file):
        try:
            yield _JsonRow.model_validate_json(line).row()
        except ValidationError as error:
            raise ValueError(first_problem(error)) from None


class _JsonClass(BaseModel):
    label: str
    probability: float = Field(ge=0, le=1)


class _JsonRow(BaseModel):
    """A row as JSON. `label` and `probability` are those of `top`'s first."""

    model_config = ConfigDict(extra="forbid", strict=True)

    image: str
    label: str | None
    probability: float | None
    top: list[_JsonClass]
    version: str | None
    error_kind: str | None
    error: str | None
    remark: str | None
    truth: str | None = None

    def row(self) -> Row:
        ranked = tuple(Ranked(each.label, each.probability) for each in self.top)
        return Row(self.image, ranked, self.version or "", self.error_kind or "", self.error or "", self.remark or "", self.truth)


def _as_json(row: Row, *, labelled: bool) -> bytes:
    top = ", ".join(f'{{"label": {_quoted(each.label)}, "probability": {each.probability:.6f}}}' for each in row.top)
    members = {
        "image": _quoted(row.image),
        "label": _quoted(row.label) if row.top else "null",
        "probability": "null" if row.probability is None else f"{row.probability:.6f}",
        "top": f"[{top}]",
        **{name: _quoted(text) if text else "null" for name, text in _texts(row).items()},
        **({"truth": _quoted(row.truth) if row.truth else "null"} if labelled else {}),
    }
    return ("{" + ", ".join(f'"{name}": {value}' for name, value in members.items()) + "}\n").encode()


def _texts(row: Row) -> dict[str, str]:
    return {"version": row.version, "error_kind": row.error_kind, "error": row.error, "remark": row.remark}


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


class _CsvLine(threading.local):
    """Makes lines of CSV, one after the other. To make a writer takes longer than to write a line."""

    def __init__(self) -> None:
        # Python before 3.13 quotes a carriage return only where lines end with one.
        self._writer = csv.writer(self, lineterminator="\r\n")
        self._line = ""

    def write(self, line: str) -> None:
        self._line = line

    def __call__(self, cells: list[str]) -> str:
        self._writer.writerow(cells)
        return self._line.removesuffix("\r\n") + "\n"


_csv_line: Final = _CsvLine()


def _bounded(file: IO[str]) -> Iterator[str]:
    while line := file.readline(MAX_ROW_BYTES):
        if len(line) >= MAX_ROW_BYTES:
            raise ValueError(f"a line of more than {MAX_ROW_BYTES:,} characters")
        yield line
