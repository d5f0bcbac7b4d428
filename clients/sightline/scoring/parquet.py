"""Rows as Parquet: typed columns, compressed, written in one pass from rows of JSON, and read back."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

from sightline.errors import DataError, MissingExtra
from sightline.host.files import reason_of, replacing
from sightline.host.text import one_line
from sightline.scoring.formats import RowFormat, read_json_lines
from sightline.scoring.rows import Ranked, Row

if TYPE_CHECKING:
    import pyarrow as pa

ROWS_PER_GROUP: Final = 65_536
"""Of a row group, so that the same rows make the same file."""


def demand_pyarrow() -> None:
    """Demand the package that writes Parquet, before a job begins. Raises MissingExtra."""
    try:
        import pyarrow.parquet  # noqa: F401
    except ModuleNotFoundError:
        raise MissingExtra("rows as Parquet need pyarrow: pip install 'sightline[score]'") from None
    except ImportError as error:  # a pyarrow for another numpy
        raise MissingExtra(f"rows as Parquet need a pyarrow that can be used here ({error}): pip install 'sightline[score]'") from None


def schema_of(row_format: RowFormat) -> "pa.Schema":
    """Return the columns: text, a probability as double, `top` as a list of structs; what there is none of is null."""
    import pyarrow as pa

    text, ranked = pa.string(), pa.struct([("label", pa.string()), ("probability", pa.float64())])
    columns = [("image", text), ("label", text), ("probability", pa.float64()), ("top", pa.list_(ranked)), ("version", text)]
    columns += [("error_kind", text), ("error", text), ("remark", text)]
    return pa.schema(columns + ([("truth", text)] if row_format.labelled else []))


def write_parquet(rows: Path, out: Path, row_format: RowFormat) -> None:
    """Write the rows of JSON in the file `rows` to `out`, which appears whole. Raises OSError, ValueError for what is no row."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = schema_of(row_format)
    with rows.open(encoding="utf-8", newline="") as file, replacing(out) as target:
        remaining = read_json_lines(file)
        with pq.ParquetWriter(target, schema, compression="zstd") as writer:
            for group in iter(lambda: list(itertools.islice(remaining, ROWS_PER_GROUP)), []):
                columns = {name: [_cell(row, name) for row in group] for name in schema.names}
                writer.write_table(pa.table(columns, schema=schema), row_group_size=ROWS_PER_GROUP)


def rows_of_parquet(out: Path) -> Iterator[Row]:
    """Read the rows of a Parquet file that a job wrote. Raises DataError, MissingExtra."""
    demand_pyarrow()
    number = 0
    try:
        with out.open("rb") as file:
            for row in _rows(file):
                yield row
                number += 1
    except OSError as error:
        raise DataError(f"{out}: the rows cannot be read: {one_line(reason_of(error))}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{out}: row {number + 1} is none that a job writes: {one_line(error)}") from None


def _rows(file: IO[bytes]) -> Iterator[Row]:
    import pyarrow.parquet as pq

    table = pq.ParquetFile(file)
    labelled = "truth" in table.schema_arrow.names
    expected = schema_of(RowFormat("jsonl", 1, labelled))
    if not table.schema_arrow.equals(expected):
        raise ValueError("the columns are not those of a job")
    for batch in table.iter_batches(1024):
        for cells in batch.to_pylist():
            top = tuple(Ranked(each["label"], each["probability"]) for each in cells["top"])
            texts = {name: cells[name] or "" for name in ("version", "error_kind", "error", "remark")}
            yield Row(cells["image"], top, truth=cells.get("truth"), **texts)


def _cell(row: Row, column: str) -> object:
    if column == "top":
        return [{"label": each.label, "probability": each.probability} for each in row.top]
    value: object = getattr(row, column)
    return None if value == "" and column != "image" else value
