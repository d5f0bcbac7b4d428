"""Scores images: a row for each, in the order of the listing, in bounded memory, and resumable to the byte."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import PIL

from sightline.classifier import Classifier
from sightline.errors import UsageError
from sightline.host.text import encodable
from sightline.scoring.engine import ClassifierEngine, Engine
from sightline.scoring.entries import Listing
from sightline.scoring.formats import RowFormat, format_of, rows_of
from sightline.scoring.journal import Head, Journal
from sightline.scoring.listing import listing
from sightline.scoring.parquet import demand_pyarrow
from sightline.scoring.part import Files, held
from sightline.scoring.ray_cluster import connected, demand_ray
from sightline.scoring.ray_engine import RayEngine
from sightline.scoring.resume import begun, demand_same
from sightline.scoring.run import Job, Notify, run
from sightline.scoring.settings import ScoreSettings, ScoreSummary


def score(
    classifier: Classifier,
    source: str | Path | Listing,
    out: Path,
    settings: ScoreSettings = ScoreSettings(),  # noqa: B008 - it is frozen
    progress: Notify = lambda _progress: None,
) -> ScoreSummary:
    """Write a row for every image that `source` names (see `listing`) to `out`, and return what was done.

    The rows are CSV, JSON lines or Parquet, by the end of `out`'s name. They grow in `OUT.part` with a journal beside it, and become
    `out` in one step at the end. A job that was ended, in whatever way, goes on with `settings.resume`, and makes the same bytes as one
    that ran through; if it was finished, nothing is done. `progress` is called after each batch. One process at a time works on `out`.

    Raises UsageError if nothing is named or the job is not the one that was begun, DataError if what was begun is damaged, MachineError
    if the rows cannot be written, MissingExtra, and whatever the server raises.
    """
    images = listing(source) if isinstance(source, (str, Path)) else source
    _demand_possible(images, out, settings)
    files = Files(out)
    with held(files):
        if (finished := _finished_before(files, settings)) is not None:
            return finished
        journal = begun(files) if settings.resume else None
        _demand_free(files, settings, journal)
        with _engine(classifier, settings) as engine:
            job = _job(classifier, engine, images, out, settings)
            if journal is not None:
                demand_same(files, journal, job.head)
            return run(files, images, job, journal, progress)


def without_server(images: Listing, out: Path, settings: ScoreSettings) -> tuple[ScoreSummary | None, str]:
    """Say what can be said of a job before a server is asked: its summary if it is finished, and the version with which it was begun.

    Raises as `score` does if the job can neither begin nor go on.
    """
    _demand_possible(images, out, settings)
    files = Files(out)
    with held(files):
        finished = _finished_before(files, settings)
        journal = begun(files) if settings.resume else None
        if finished is None:
            _demand_free(files, settings, journal)
    return finished, journal.head.version if journal is not None else ""


def _demand_possible(images: Listing, out: Path, settings: ScoreSettings) -> None:
    if format_of(out) == "parquet":
        demand_pyarrow()
    if settings.engine == "ray":
        demand_ray()
    if settings.labelled and not images.has_truth:
        raise UsageError(
            f"{images.source}: a list of paths does not say what the images show: write a list as CSV or JSON lines, with the column truth",
            settings=("labelled",),
        )
    if not out.parent.is_dir():
        raise UsageError(f"{out.parent}: there is no such folder to write {out.name} in")


def _demand_free(files: Files, settings: ScoreSettings, journal: Journal | None) -> None:
    if settings.overwrite:
        return
    if files.begun and not settings.resume:
        raise UsageError(
            f"{files.begun[0]}: a job that was not finished left its rows here: resume it, or overwrite it",
            settings=("resume", "overwrite"),
        )
    if files.out.exists() and journal is None:
        raise UsageError(f"{files.out}: the file exists already: choose another name, or overwrite it", settings=("overwrite",))


@contextmanager
def _engine(classifier: Classifier, settings: ScoreSettings) -> Iterator[Engine]:
    if settings.engine == "ray":
        with connected(settings.ray_address):
            yield RayEngine(classifier, settings.top, settings.flow)
    else:
        yield ClassifierEngine(classifier, settings.top, settings.flow)


def _job(classifier: Classifier, engine: Engine, images: Listing, out: Path, settings: ScoreSettings) -> Job:
    kind = format_of(out)
    top = min(settings.top, len(classifier.card.labels))
    head = Head(
        sightline=version("sightline"),
        pillow=PIL.__version__,
        source=encodable(images.source),
        model=classifier.model,
        version=classifier.served_version(),
        card_sha256=classifier.card.sha256,
        batch_size=engine.batch_size,
        max_pixels=classifier.max_pixels,
        rows_as=kind,
        top=top,
        labelled=settings.labelled,
        raw_cells=settings.raw_cells,
        replaces=settings.overwrite,
    )
    rows = RowFormat("csv" if kind == "csv" else "jsonl", top, settings.labelled, settings.raw_cells)
    return Job(head, rows, engine, settings.checkpoint_s)


def _finished_before(files: Files, settings: ScoreSettings) -> ScoreSummary | None:
    """Return the summary of a job that is to be resumed and was finished; None if there is something to do."""
    if not settings.resume or files.begun or not files.out.exists():
        return None
    rows = broken = remarked = 0
    for row in rows_of(files.out):
        rows += 1
        broken += bool(row.error)
        remarked += bool(row.remark)
    return ScoreSummary(rows, broken, 0, files.out, remarked, resumed_rows=rows)
