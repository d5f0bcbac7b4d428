"""`sightline score`: a row for every image of a folder, a list, a pattern or a bucket."""

import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Final, NoReturn, Unpack

import click

from sightline.commands.options import Server, max_pixels_option, model_options, options_as, options_named, version_option
from sightline.errors import RowsFailed
from sightline.scoring.part import Files
from sightline.scoring.settings import ScoreSettings, ScoreSummary

if TYPE_CHECKING:
    from sightline.classifier import Classifier
    from sightline.client_settings import ClientOptions

WAIT_S: Final = 120.0
"""A job outlasts a server that is started anew, with a large model too."""

OPTIONS: Final = {
    "resume": "--resume",
    "overwrite": "--overwrite",
    "labelled": "--labelled",
    "readers": "--readers",
    "requests": "--requests",
    "top": "--top",
    "engine": "--engine",
    "ray_address": "--ray-address",
}


class _Ended(BaseException):
    """A signal ends the job."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@click.command(
    short_help="Score a folder of images, a list or a bucket: a row for each.", context_settings={"default_map": {"wait_s": WAIT_S}}
)
@click.argument("model")
@click.argument("source", metavar="FOLDER|LIST|PATTERN|URL")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The file to write: .csv, .jsonl or .parquet.")
@options_as(
    "settings",
    ScoreSettings,
    click.option("--top", type=click.IntRange(1), default=1, show_default=True, help="How many classes to write for each image."),
    click.option("--readers", type=click.IntRange(1, 256), help="Images that are read at the same time.  [default: one for each core]"),
    click.option("--requests", type=click.IntRange(1, 256), default=4, show_default=True, help="Requests in flight at the same time."),
    click.option(
        "--labelled",
        is_flag=True,
        help="Write the column truth (the first folder below FOLDER, or what the list says), and a report into OUT.report: accuracy, "
        "figures for each class, confusion, mistakes.",
    ),
    click.option("--raw-cells", is_flag=True, help="Write CSV cells that a spreadsheet would run as formulas as they are."),
    click.option(
        "--engine",
        type=click.Choice(["local", "ray"]),
        default="local",
        show_default=True,
        help="What reads the images and asks the server: this machine alone, or Ray Data, on one machine or a cluster.",
    ),
    click.option(
        "--ray-address",
        default="",
        metavar="HOST:PORT",
        help="The cluster of --engine ray.  [default: RAY_ADDRESS, else the Ray of this machine, else one that is started]",
    ),
    click.option("--resume", is_flag=True, help="Go on with the job where it was ended; begin it if it was not begun."),
    click.option("--overwrite", is_flag=True, help="Replace the file if it exists, and a job that was not finished."),
)
@max_pixels_option
@version_option
@model_options
def score(model: str, source: str, out: Path, settings: ScoreSettings, max_pixels: int, version: str, server: Server) -> None:
    """Score every image of a folder, a list, a pattern or a bucket with MODEL: one row per image, the broken ones included.

    A LIST is a file with a path or URL a line (.txt, .lst), or with the column or member image (.csv, .jsonl); - is a list on stdin. A
    PATTERN has *, ? and **, in quotes. A URL is s3://bucket/prefix, gs://bucket/prefix, or https://host/list.txt.

    With --labelled a report is written too, into OUT.report: accuracy with its interval, each class, the confusion matrix, mistakes.

    An image that cannot be read gets a row with the reason and no label; the command then ends with exit code 16. While the server is
    away the job waits; whatever ends it, the same command with --resume goes on, and makes the same file.
    """
    from sightline.commands.progress import Display
    from sightline.console import messages
    from sightline.scoring import listing
    from sightline.scoring import score as score_images
    from sightline.scoring.job import without_server

    with options_named(OPTIONS), _ended_by_signals(out) as opened:
        images = listing(source)
        card = ""
        labels: tuple[str, ...] = ()
        done, begun_with = without_server(images, out, settings)
        if settings.labelled:
            _demand_reportable(out, settings)
        if done is None:
            with (
                Display(images, messages()) as display,
                _pinned(server, model, version=version or begun_with, max_pixels=max_pixels, on_wait=display.waiting) as classifier,
            ):
                opened.append(classifier)
                done = score_images(classifier, images, out, settings, display.progress)
                card, labels = f", card {classifier.card.sha256[:12]}", classifier.card.labels
        elif settings.labelled:
            with server.opened(model, version=version) as classifier:
                labels = classifier.card.labels
        _tell(done, card)
        if settings.labelled:
            _report(done, labels, f"{model} on {source}")
        if done.broken:
            raise RowsFailed(f"{done.broken:,} of {done.rows:,} images could not be read: their rows in {done.out} say why")


def _report_folder(out: Path) -> Path:
    return out.with_name(f"{out.name}.report")


def _demand_reportable(out: Path, settings: ScoreSettings) -> None:
    """Find out before the job whether its report can be written after it."""
    from sightline.labelled import demand_reportable

    demand_reportable(_report_folder(out), overwrite=settings.overwrite or settings.resume)


def _report(done: "ScoreSummary", labels: Sequence[str], subject: str) -> None:
    """Write what the rows say of the model, read back from the output, beside it."""
    from sightline.labelled import LabelledRow, labelled_report, show_report, write_report
    from sightline.scoring import rows_of

    rows = (LabelledRow(row.image, row.truth or "", row.label, row.probability or 0.0, row.error) for row in rows_of(done.out))
    report = labelled_report(rows, labels)
    write_report(report, _report_folder(done.out), subject)
    show_report(report)
    click.echo(f"the report is in {_report_folder(done.out)}")


def _pinned(server: Server, model: str, **options: "Unpack[ClientOptions]") -> "Classifier":
    """Open a classifier that asks for one version: a version that is published while the job runs answers nothing of it."""
    if not options.get("version"):
        with server.opened(model, **options) as newest:
            options["version"] = newest.served_version()
    return server.opened(model, **options)


def _tell(done: "ScoreSummary", card: str) -> None:
    if not card:
        click.echo(f"{done.out} was finished before: {done.rows:,} rows ({done.broken:,} with an error); nothing was done")
    else:
        before = f"; {done.resumed_rows:,} of them from before" if done.resumed_rows else ""
        click.echo(
            f"{done.rows:,} rows in {done.out} ({done.broken:,} with an error; {done.remarked:,} with a remark; "
            f"{done.passed_over:,} other files passed over; version {done.version}{card}{before})"
        )
    if done.guarded:
        click.echo(
            f"note: {done.guarded:,} cells that a spreadsheet would run as formulas begin with an apostrophe, which `rows_of` takes off "
            "(--raw-cells writes them as they are)",
            err=True,
        )


@contextmanager
def _ended_by_signals(out: Path) -> Iterator[list["Classifier"]]:
    """Let Ctrl-C, SIGTERM and SIGHUP end the block with its journal written, and the command with 128 + the signal's number.

    The classifiers that the block puts into the list are closed by the signal, so that no thread goes on waiting for their server.
    """
    opened: list[Classifier] = []
    numbers = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]

    def end(number: int, _frame: FrameType | None) -> NoReturn:
        for each in numbers:
            signal.signal(each, before[each])  # a second one ends it at once
        for classifier in opened:
            classifier.close()
        raise _Ended(number)

    if threading.current_thread() is not threading.main_thread():
        yield opened
        return
    before = {number: signal.signal(number, end) for number in numbers}
    try:
        yield opened
    except _Ended as ended:
        begun = Files(out).part.exists()
        advice = "the same command with --resume goes on where it was" if begun else "no row was written"
        click.echo(f"ended by {signal.Signals(ended.number).name}: {advice}", err=True)
        sys.exit(128 + ended.number)
    finally:
        for number in numbers:
            signal.signal(number, before[number])
