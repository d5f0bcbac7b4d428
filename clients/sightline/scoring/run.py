"""Runs a job: entries go to the engine, rows to the part, checkpoints to the journal, and the part becomes the output.

Requests always hold as many images as the engine's batch size, and checkpoints lie between two of them only. So each row comes from the
same request as in a job that ran through, and no answer depends on how often the job was ended.
"""

import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from itertools import chain
from typing import Final, cast

from sightline.errors import DataError, ImageError, MachineError, ModelError, SightlineError, UsageError
from sightline.host.files import reason_of, remove_leftovers, sync_folder
from sightline.host.text import one_line
from sightline.scoring.engine import Engine
from sightline.scoring.entries import Entry, Listing, ListingHash, PassedOver
from sightline.scoring.formats import RowFormat
from sightline.scoring.journal import Checkpoint, Counts, Head, Journal
from sightline.scoring.parquet import write_parquet
from sightline.scoring.part import Files, Part
from sightline.scoring.resume import demand_finished, skip
from sightline.scoring.rows import Outcome, row_of
from sightline.scoring.settings import ScoreProgress, ScoreSummary

Notify = Callable[[ScoreProgress], None]

MOST_CHECKPOINTS: Final = 2000
"""About so many are made in the time that a job takes, however long, so that its journal stays small."""


@dataclass(frozen=True)
class Job:
    """What is to be done."""

    head: Head
    rows: RowFormat
    engine: Engine
    checkpoint_s: float


def run(files: Files, images: Listing, job: Job, journal: Journal | None, progress: Notify) -> ScoreSummary:
    """Write the rows of a job, those that `journal` does not count yet, and finish it. Raises as `score` does."""
    running = _Run(files, images, job, progress)
    try:
        return running.finished(journal)
    except SightlineError as error:
        if running.part is None:
            raise
        safe = f"{running.saved_rows:,} rows are safe in {files.part}: the job can be resumed"
        raise type(error)(f"{error} ({safe})", settings=(*error.settings, "resume")) from None
    except OSError as error:
        raise MachineError(f"{files.out}: the rows cannot be written: {one_line(reason_of(error))}") from None


class _Run:
    """A job that is under way."""

    def __init__(self, files: Files, images: Listing, job: Job, progress: Notify) -> None:
        self._files, self._images, self._job, self._progress = files, images, job, progress
        self._passed_over = PassedOver()
        self._rows = self._resumed = self._broken = self._remarked = self._guarded = 0
        self._hash = ListingHash()
        self.part: Part | None = None
        """Open or closed; None before there is one."""

    @property
    def saved_rows(self) -> int:
        """Rows that a resumed job will not make again."""
        return self.part.saved.rows if self.part is not None and self.part.saved is not None else 0

    def finished(self, journal: Journal | None) -> ScoreSummary:
        """Do what is left to do."""
        last = journal.checkpoints[-1] if journal is not None and journal.checkpoints else None
        replaces = (journal.head if journal is not None else self._job.head).replaces
        if last is not None:
            self._rows = self._resumed = last.rows
            self._broken, self._remarked, self._guarded = last.counts.broken, last.counts.remarked, last.counts.guarded
        if last is None or not last.complete:
            if self._files.out.exists() and not replaces:
                raise UsageError(f"{self._files.out}: the file exists already, and the job was begun without leave to overwrite it")
            last = self._written(journal, last)
        if self._files.part.exists():
            self._publish(replaces=replaces)
        else:
            demand_finished(self._files, last)
        self._files.journal.unlink()
        counts, version = last.counts, self._job.head.version
        return ScoreSummary(
            last.rows, counts.broken, counts.passed_over, self._files.out, counts.remarked, counts.guarded, self._resumed, version
        )

    def _written(self, journal: Journal | None, last: Checkpoint | None) -> Checkpoint:
        """Write the rows after the last checkpoint, and return the one that is complete."""
        entries = self._images.entries(self._passed_over)
        if journal is not None and last is not None:
            self._hash = skip(entries, self._files, journal.checkpoints)
            part = Part.go_on(self._files, journal.whole_bytes, last)
        else:
            first = next(entries, None)
            if first is None:
                others = self._passed_over.total
                passed = f" ({others:,} other file{'s were' if others > 1 else ' was'} passed over)" if others else ""
                raise UsageError(f"{self._images.source}: there is no image here{passed}")
            entries = chain([first], entries)
            part = Part.begin(self._files, self._job.head, self._job.rows.header())
        self.part = part
        try:
            self._append(part, entries)
        except BaseException:
            with suppress(OSError):
                part.close()
            raise
        part.close()
        return cast("Checkpoint", part.saved)

    def _append(self, part: Part, entries: Iterator[Entry]) -> None:
        waiting: deque[Entry] = deque()

        def listed() -> Iterator[Entry]:
            for entry in entries:
                waiting.append(entry)
                yield entry

        started_s = saved_s = time.monotonic()
        with closing(cast("Generator[Outcome, None, None]", self._job.engine.answers(listed()))) as outcomes:
            for outcome in outcomes:
                self._add(part, waiting.popleft(), outcome)
                if self._rows % self._job.engine.batch_size:
                    continue
                part.mark(self._checkpoint(part))
                now_s = time.monotonic()
                if now_s - saved_s >= max(self._job.checkpoint_s, (now_s - started_s) / MOST_CHECKPOINTS):
                    part.save()
                    saved_s = now_s
                self._progress(ScoreProgress(self._rows, self._resumed, self._broken))
        if waiting:
            raise RuntimeError(f"the engine gave no outcome for {len(waiting)} of the images that it was given")
        part.mark(self._checkpoint(part, complete=True))
        self._progress(ScoreProgress(self._rows, self._resumed, self._broken))

    def _add(self, part: Part, entry: Entry, outcome: Outcome) -> None:
        row = row_of(entry, outcome, labelled=self._job.head.labelled)
        if not isinstance(outcome, ImageError) and outcome.version != self._job.head.version:
            raise ModelError(
                f"version {outcome.version} of {self._job.head.model} answered in a job that was begun with version "
                f"{self._job.head.version}: ask for one version"
            )
        content, guarded = self._job.rows.encoded(row)
        part.write(content)
        self._hash.add(entry)
        self._rows += 1
        self._broken += bool(row.error)
        self._remarked += bool(row.remark)
        self._guarded += guarded

    def _checkpoint(self, part: Part, *, complete: bool = False) -> Checkpoint:
        counts = Counts(
            broken=self._broken,
            remarked=self._remarked,
            guarded=self._guarded,
            passed_over=self._passed_over.total if complete else 0,
        )
        return Checkpoint(
            rows=self._rows,
            bytes=part.bytes,
            part_sha256=part.sha256(),
            listing_sha256=self._hash.hexdigest(),
            counts=counts,
            complete=complete,
        )

    def _publish(self, *, replaces: bool) -> None:
        files, is_parquet = self._files, self._job.head.rows_as == "parquet"
        # A part that is still there although Parquet was written from it is the trace of a job that was killed right then.
        if files.out.exists() and not replaces and not is_parquet:
            raise UsageError(
                f"{files.out}: somebody made this file while the job ran: move it away, and resume the job", settings=("resume",)
            )
        if is_parquet:
            remove_leftovers(files.out)
            try:
                write_parquet(files.part, files.out, self._job.rows)
            except ValueError as error:
                raise DataError(f"{files.part}: the rows are damaged: {one_line(error)}") from None
            sync_folder(files.out.parent)
            files.part.unlink()
        else:
            files.part.replace(files.out)
            sync_folder(files.out.parent)
