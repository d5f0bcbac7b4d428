"""Writes the images on which two models differ, and those that could not be read, as CSV or JSON lines, one after the other."""

import csv
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from pydantic_core import to_json

from sightline.compare.result import Broken, Difference
from sightline.errors import MachineError, UsageError
from sightline.host.files import reason_of, replacing
from sightline.host.spreadsheet import spreadsheet_safe

COLUMNS: Final = ("image", "truth", "label_a", "probability_a", "label_b", "probability_b", "max_delta_p", "delta_label", "error")
NAMES: Final = frozenset({"image", "truth", "label_a", "label_b", "delta_label", "error"})
SUFFIXES: Final = (".csv", ".jsonl")


def demand_writable(out: Path, *, overwrite: bool) -> None:
    """Raise UsageError, before images are compared, unless `out` is a new CSV or JSONL file in a folder that exists."""
    if out.suffix.lower() not in SUFFIXES:
        raise UsageError(f"{out}: differences are written as CSV or JSON lines, so the file's name must end with .csv or .jsonl")
    if not out.parent.is_dir():
        raise UsageError(f"{out.parent}: there is no such folder to write {out.name} in")
    if out.is_dir() or (out.exists() and not overwrite):
        raise UsageError(f"{out}: the file exists already: choose another name, or overwrite it")


@contextmanager
def flips_file(out: Path) -> Iterator[Callable[[Difference | Broken], None]]:
    """Give a function that writes one difference, or one image that could not be read, into `out`: CSV or, by its suffix, JSON lines.

    The file appears whole when the block ends well; else it is as it was before. Every row has COLUMNS; what it has no value for is empty,
    or null. In CSV names are as `spreadsheet_safe` makes them. Raises MachineError if it cannot be written.
    """
    as_lines = out.suffix.lower() == ".jsonl"
    try:
        with replacing(out) as file:
            writer = csv.writer(_Encoding(file.write), lineterminator="\n")
            if not as_lines:
                writer.writerow(COLUMNS)

            def keep(entry: Difference | Broken) -> None:
                values = _values(entry)
                if as_lines:
                    file.write(to_json(values) + b"\n")
                else:
                    writer.writerow([_cell(name, value) for name, value in values.items()])

            yield keep
    except OSError as error:
        raise MachineError(f"{out}: the differences cannot be written: {reason_of(error)}") from None


class _Encoding:
    """A text file over what writes bytes."""

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._write = write

    def write(self, text: str) -> object:
        return self._write(text.encode())


def _values(entry: Difference | Broken) -> Mapping[str, str | float | None]:
    return {name: getattr(entry, name, None) for name in COLUMNS}


def _cell(name: str, value: str | float | None) -> str:
    if value is None:
        return ""
    return spreadsheet_safe(str(value)) if name in NAMES else f"{value:.6f}"
