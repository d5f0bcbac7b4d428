"""Scores a folder of images against a server: one row per image, the broken ones included, in bounded memory.

Each worker thread takes a batch of paths, reformats it (Pillow works without Python's lock) and asks the server; rows are
written in the order of the paths. At most two batches a worker are under way at any time.
"""

import csv
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from sightline.classifier import Classifier, Guess
from sightline.errors import ImageError, MachineError, SightlineError, UsageError
from sightline.host.files import reason_of
from sightline.image import is_image_file

Outcome = Guess | ImageError


@dataclass(frozen=True)
class ScoreSettings:
    """How a folder is scored."""

    top: int = 1
    """Classes to write for each image, at most as many as the model has."""
    workers: int | None = None
    """Threads that read images and ask the server; None: 2 for each core, at most 8."""
    overwrite: bool = False
    """Whether a file that exists is replaced."""


@dataclass(frozen=True)
class ScoreSummary:
    """What a finished job did."""

    rows: int
    broken: int
    """Rows that hold an error instead of a label."""
    passed_over: int
    """Files that are no images, neither by their name nor by their content."""
    out: Path
    remarked: int = 0
    """Rows that hold a remark beside the label: there is nothing to read on the image."""


def score_folder(
    classifier: Classifier,
    folder: Path,
    out: Path,
    settings: ScoreSettings = ScoreSettings(),
    progress: Callable[[int], None] = lambda _rows: None,
) -> ScoreSummary:
    """Write a CSV row for every image below `folder`, sorted by path, and return what was done.

    The rows grow in `OUT.part`, which becomes `out` in one step at the end: an interrupted job never looks like a finished one,
    and what it had done is still there. Columns: image (relative path, with `/`), label, probability, label_2, probability_2 …
    up to `top`, version (of the model that answered), error (empty for a good row), remark (of a good row, `Guess.remark`).

    `progress` is called with the number of rows of each batch. Raises UsageError if the folder holds no image, or it or the file is not
    usable, MachineError if the rows cannot be written, and whatever the server raises, naming the part file.
    """
    _check(folder, out, settings.overwrite)
    _demand_images(folder)
    top = min(settings.top, len(classifier.card.labels))
    workers = settings.workers or min(8, (os.cpu_count() or 1) * 2)
    walk = _Walk(folder)
    part = out.with_name(out.name + ".part")
    rows = broken = remarked = 0
    try:
        # A file name may hold bytes that are no UTF-8; they are written as \udcxx rather than ending the job.
        with part.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(_header(top))
            for batch, outcomes in _in_order(classifier, iter(walk), settings.top, workers):
                for path, outcome in zip(batch, outcomes, strict=True):
                    writer.writerow(_row(path.relative_to(folder).as_posix(), outcome, top))
                    rows += 1
                    broken += isinstance(outcome, ImageError)
                    remarked += isinstance(outcome, Guess) and bool(outcome.remark)
                progress(len(batch))
            file.flush()
            os.fsync(file.fileno())
        part.replace(out)
    except SightlineError as error:
        raise type(error)(f"{error} ({rows} rows were written before that; they are in {part})") from None
    except OSError as error:
        raise MachineError(f"{out}: the rows cannot be written: {reason_of(error)}") from None
    return ScoreSummary(rows, broken, walk.passed_over, out, remarked)


def _demand_images(folder: Path) -> None:
    walk = _Walk(folder)
    if next(iter(walk), None) is None:
        others = f" ({walk.passed_over} other file{'s were' if walk.passed_over > 1 else ' was'} passed over)" if walk.passed_over else ""
        raise UsageError(f"{folder}: there is no image in this folder{others}")


def images_below(folder: Path) -> Iterator[Path]:
    """Give the paths that `score_folder` would score, in its order. Raises UsageError if a folder cannot be read."""
    if not folder.is_dir():
        raise UsageError(f"{folder}: there is no such folder of images")
    return iter(_Walk(folder))


class _Walk:
    """The images below a folder, sorted, one folder in memory at a time; links to folders are not followed."""

    def __init__(self, folder: Path) -> None:
        self.passed_over = 0
        self._folder = folder

    def __iter__(self) -> Iterator[Path]:
        self.passed_over = 0
        return self._below(self._folder)

    def _below(self, folder: Path) -> Iterator[Path]:
        try:
            with os.scandir(folder) as entries:
                children = sorted((entry.name, entry.is_dir(follow_symlinks=False), entry.is_dir()) for entry in entries)
        except OSError as error:
            raise UsageError(f"{folder}: the folder cannot be read: {reason_of(error)}") from None
        for name, is_folder, leads_to_folder in children:
            if name.startswith("."):
                continue
            if is_folder:
                yield from self._below(folder / name)
            elif not leads_to_folder and is_image_file(folder / name):
                yield folder / name
            else:
                self.passed_over += 1


def _in_order(classifier: Classifier, paths: Iterator[Path], top: int, workers: int) -> Iterator[tuple[list[Path], list[Outcome]]]:
    """Give batches of paths with their outcomes, in order, at most two batches a worker ahead."""
    pool = ThreadPoolExecutor(workers, thread_name_prefix="score")
    pending: deque[tuple[list[Path], Future[list[Outcome]]]] = deque()

    def answer(batch: list[Path]) -> list[Outcome]:
        return list(classifier.stream(batch, top))

    try:
        for batch in iter(lambda: list(islice(paths, classifier.batch_size)), []):
            pending.append((batch, pool.submit(answer, batch)))
            if len(pending) >= 2 * workers:
                oldest, future = pending.popleft()
                yield oldest, future.result()
        while pending:
            oldest, future = pending.popleft()
            yield oldest, future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _check(folder: Path, out: Path, overwrite: bool) -> None:
    if not folder.is_dir():
        raise UsageError(f"{folder}: there is no such folder of images")
    if out.suffix.lower() != ".csv":
        raise UsageError(f"{out}: rows are written as CSV, so the file's name must end with .csv")
    if out.exists() and not overwrite:
        raise UsageError(f"{out}: the file exists already: choose another name, or overwrite it")
    with suppress(OSError):
        if out.parent.is_dir():
            return
    raise UsageError(f"{out.parent}: there is no such folder to write {out.name} in")


def _header(top: int) -> list[str]:
    more = [column for rank in range(2, top + 1) for column in (f"label_{rank}", f"probability_{rank}")]
    return ["image", "label", "probability", *more, "version", "error", "remark"]


def _row(name: str, outcome: Outcome, top: int) -> list[str]:
    if isinstance(outcome, ImageError):
        return [name, *[""] * (2 * top), "", str(outcome), ""]
    cells = [cell for entry in outcome.top for cell in (entry.label, f"{entry.probability:.6f}")]
    return [name, *cells, outcome.version, "", outcome.remark]
