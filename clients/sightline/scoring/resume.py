"""Finds out how a job that was begun goes on: held to its journal, its part and the listing, entry by entry, without opening an image."""

import io
from collections.abc import Generator, Iterator
from contextlib import closing
from pathlib import Path

from sightline.errors import DataError, UsageError
from sightline.host.text import encodable
from sightline.scoring.entries import Entry, ListingHash
from sightline.scoring.formats import read_csv, read_json_lines, rows_of
from sightline.scoring.journal import Checkpoint, Head, Journal, differences, read_journal
from sightline.scoring.part import Files, demand_whole
from sightline.scoring.rows import Row

AGAIN = "Overwrite it to begin anew"


def begun(files: Files) -> Journal | None:
    """Return the journal of the job that was begun; None if none was. Raises DataError if it cannot go on."""
    journal = read_journal(files.journal)
    if journal is None:
        if files.part.exists():
            raise DataError(
                f"{files.part}: there is no journal ({files.journal.name}) to say what these rows are. {AGAIN}", settings=("overwrite",)
            )
        return None
    if journal.checkpoints and not files.part.exists() and not (journal.checkpoints[-1].complete and files.out.exists()):
        raise DataError(f"{files.part}: the rows of the job that was begun are not there any more. {AGAIN}", settings=("overwrite",))
    return journal


def demand_same(files: Files, journal: Journal, head: Head) -> None:
    """Demand that a job is the one that was begun. Raises UsageError that says what differs."""
    if what := differences(journal.head, head):
        raise UsageError(
            f"{files.part}: the job was begun otherwise: {what}. Resume it as it was begun, or overwrite it", settings=("overwrite",)
        )


def demand_finished(files: Files, checkpoint: Checkpoint) -> None:
    """Demand that `out` is what a complete job without a part became. Raises DataError."""
    if files.out.suffix.lower() != ".parquet":
        demand_whole(files.out, checkpoint)
    elif (count := sum(1 for _ in rows_of(files.out))) != checkpoint.rows:
        raise DataError(f"{files.out}: it has {count:,} rows, and the job wrote {checkpoint.rows:,}")


def skip(entries: Iterator[Entry], files: Files, checkpoints: tuple[Checkpoint, ...]) -> ListingHash:
    """Take the entries that have a row already, and return their hash. Raises UsageError at the first that is another one."""
    last = checkpoints[-1]
    demand_whole(files.part, last)
    ends = iter(checkpoints)
    end, before, listing_hash = next(ends), 0, ListingHash()
    with closing(_rows(files.part, last)) as rows:
        for number, row in enumerate(rows, 1):
            entry = next(entries, None)
            if entry is None:
                raise _changed(files, f"it had at least {last.rows:,} images and now has {number - 1:,}")
            if encodable(entry.name) != row.image:
                raise _changed(files, f"image {number:,} was {row.image} and is {encodable(entry.name)}")
            listing_hash.add(entry)
            while number == end.rows:
                if listing_hash.hexdigest() != end.listing_sha256:
                    raise _changed(
                        files, f"of images {before + 1:,} to {number:,} (the last is {row.image}), one has another size, time or class"
                    )
                before, end = number, next(ends, end)
                if end.rows <= before:
                    break
    return listing_hash


def _rows(part: Path, until: Checkpoint) -> Generator[Row, None, None]:
    """Give the rows of a part up to a checkpoint."""
    with part.open("rb") as binary:
        # What follows the checkpoint may be torn in the middle of a letter.
        file = io.TextIOWrapper(binary, encoding="utf-8", errors="replace", newline="")
        is_csv = file.read(1) != "{"
        file.seek(0)
        rows = read_csv(file) if is_csv else read_json_lines(file)
        try:
            for _ in range(until.rows):
                yield next(rows)
        except (ValueError, StopIteration):
            raise DataError(f"{part}: the rows are damaged: they are none that a job writes") from None


def _changed(files: Files, how: str) -> UsageError:
    return UsageError(f"{files.part}: the listing is another one than when the job was begun: {how}. {AGAIN}", settings=("overwrite",))
