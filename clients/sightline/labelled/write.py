"""Writes a report into a folder: `summary.json`, `classes.csv`, `confusion.csv`, `mistakes.csv` and `confusion.png`."""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from pydantic_core import to_json

from sightline.errors import MachineError, MissingExtra, UsageError
from sightline.host.files import reason_of, write_atomically
from sightline.host.spreadsheet import spreadsheet_safe
from sightline.host.text import encodable
from sightline.labelled.figure import confused_pairs, confusion_png
from sightline.labelled.report import LabelledReport
from sightline.proportions import demand_scipy

SUMMARY, CLASSES, CONFUSION, MISTAKES, FIGURE = "summary.json", "classes.csv", "confusion.csv", "mistakes.csv", "confusion.png"

FILES: Final = (SUMMARY, CLASSES, CONFUSION, MISTAKES, FIGURE)

PURPOSE: Final = "a report on labelled images"

PAIRS: Final = 20
"""Of confused classes in the summary; all stand in confusion.csv."""

Cell = str | int | float | bool | None


def demand_reportable(folder: Path, *, overwrite: bool = False) -> None:
    """Make sure, before a long job, that its report can be written into `folder`, which is made if it is not there.

    Raises MissingExtra without scipy or matplotlib, UsageError if the folder cannot be one or, unless `overwrite`, holds a report
    already, MachineError if nothing can be written there.
    """
    demand_scipy(PURPOSE)
    try:
        import matplotlib as mpl  # noqa: F401
    except ModuleNotFoundError:
        raise MissingExtra(f"{PURPOSE} needs matplotlib: pip install 'sightline[score]'") from None
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: this is a file: name a folder for the report")
    present = [name for name in FILES if (folder / name).exists()]
    if present and not overwrite:
        raise UsageError(
            f"{folder}: there is a report already ({present[0]}): choose another folder, or overwrite it", settings=("overwrite",)
        )
    _make(folder)


def write_report(report: LabelledReport, folder: Path, subject: str = "") -> None:
    """Write the files of a report into `folder`, which is made if it is not there; each replaces its predecessor in one step.

    `subject` says what was measured, as `mnist version 2 on photos`; it stands in the summary and over the figure. Names in CSV are as
    `sightline.host.spreadsheet.spreadsheet_safe` makes them. Raises MachineError if the folder cannot be written.
    """
    _make(folder)
    contents: dict[str, str | bytes] = {
        CLASSES: _csv(
            ("label", "support", "unreadable", "answered", "correct", "precision", "recall", "f1"),
            (
                (
                    spreadsheet_safe(each.label),
                    each.support,
                    each.unreadable,
                    each.answered,
                    each.correct,
                    *_figures(each.precision, each.recall, each.f1),
                )
                for each in report.classes
            ),
        ),
        CONFUSION: _csv(("truth", "truth_is_label", "answer", "images"), _confusion_rows(report)),
        MISTAKES: _csv(
            ("image", "truth", "label", "probability"),
            (
                (spreadsheet_safe(row.image), spreadsheet_safe(row.truth), spreadsheet_safe(row.label), f"{row.probability:.6f}")
                for row in report.mistakes
            ),
        ),
        FIGURE: confusion_png(report, subject),
        SUMMARY: to_json(summary_of(report, subject), indent=1) + b"\n",
    }
    try:
        for name, content in contents.items():
            write_atomically(folder / name, content)
    except OSError as error:
        raise MachineError(f"{folder}: the report cannot be written: {reason_of(error)}") from None


def summary_of(report: LabelledReport, subject: str = "") -> dict[str, object]:
    """Return what `summary.json` holds; docs/clients.md describes each member."""
    labels = report.labels
    return {
        "schema": 1,
        "subject": encodable(subject),
        "images": report.images,
        "answered": report.answered,
        "correct": report.correct,
        "accuracy": report.accuracy,
        "interval_95": report.interval_95,
        "unreadable": report.unreadable,
        "accuracy_with_unreadable": report.accuracy_with_unreadable,
        "interval_with_unreadable_95": report.interval_with_unreadable_95,
        "balanced_accuracy": report.balanced_accuracy,
        "macro_f1": report.macro_f1,
        "without_truth": report.without_truth,
        "unknown_images": report.unknown_images,
        "unknown_truths": [
            {"truth": encodable(each.truth), "images": each.images, "unreadable": each.unreadable, "nearest": each.nearest or None}
            for each in report.unknown_truths
        ],
        "mistakes": report.mistakes_count,
        "mistakes_listed": len(report.mistakes),
        "most_confused": [
            {"truth": labels[truth], "answer": labels[answer], "images": count} for truth, answer, count in confused_pairs(report, PAIRS)
        ],
    }


def _confusion_rows(report: LabelledReport) -> Iterable[Sequence[Cell]]:
    """True classes in the order of the labels, then truths that are no label. What could not be read has an empty answer."""
    labels = [spreadsheet_safe(label) for label in report.labels]
    pairs = sorted(report.confusion.items())
    at = 0
    for index, each in enumerate(report.classes):
        while at < len(pairs) and pairs[at][0][0] == index:
            yield labels[index], "true", labels[pairs[at][0][1]], pairs[at][1]
            at += 1
        if each.unreadable:
            yield labels[index], "true", "", each.unreadable
    for unknown in report.unknown_truths:
        truth = spreadsheet_safe(unknown.truth)
        for label, count in sorted(unknown.answers.items(), key=lambda answer: (-answer[1], answer[0])):
            yield truth, "false", spreadsheet_safe(label), count
        if unknown.unreadable:
            yield truth, "false", "", unknown.unreadable


def _figures(*values: float | None) -> list[str]:
    return ["" if value is None else f"{value:.6f}" for value in values]


def _csv(header: Sequence[str], rows: Iterable[Sequence[Cell]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return encodable(text.getvalue())


def _make(folder: Path) -> None:
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise MachineError(f"{folder}: the folder for the report cannot be made: {reason_of(error)}") from None
