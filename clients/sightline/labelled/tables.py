"""Prints a report on the terminal: accuracy, classes, confusions, the surest mistakes, and every truth that is no label."""

from typing import Final

from sightline.console import messages, results, table
from sightline.host.text import one_line, printable
from sightline.labelled.figure import confused_pairs
from sightline.labelled.report import ClassCounts, LabelledReport

CLASSES: Final = 30
"""Of more, those with the lowest recall are shown."""
SHOWN: Final = 5
"""Confusions and mistakes."""
NAME: Final = 40


def show_report(report: LabelledReport) -> None:
    """Print the report on stdout, and on stderr what is in no figure."""
    console = results()
    for line in accuracy_lines(report):
        console.print(line)
    chosen = _lowest(report) if len(report.classes) > CLASSES else report.classes
    rows = table("class", "images", "recall", "precision", "F1", "unreadable")
    for each in chosen:
        rows.add_row(_name(each.label), f"{each.support:,}", *map(_share, (each.recall, each.precision, each.f1)), f"{each.unreadable:,}")
    console.print(rows)
    if len(chosen) < len(report.classes):
        console.print(f"({len(chosen)} of {len(report.classes):,} classes: those with images of the lowest recall)")
    _show_mistakes(report)
    for note in notes(report):
        messages().print(f"note: {note}")


def accuracy_lines(report: LabelledReport) -> list[str]:
    """Return the sentences with the accuracy and its interval; with the unreadable images as wrong ones too, if there are any."""
    if report.accuracy is None or report.interval_95 is None:
        return ["no image that could be read shows a class of the model: there is no accuracy"]
    lines = [f"accuracy {_with_interval(report.accuracy, report.interval_95)} of {report.answered:,} answered images"]
    if report.unreadable and report.accuracy_with_unreadable is not None and report.interval_with_unreadable_95 is not None:
        counted = _with_interval(report.accuracy_with_unreadable, report.interval_with_unreadable_95)
        lines.append(
            f"with the {report.unreadable:,} unreadable ones as wrong answers: {counted} of {report.answered + report.unreadable:,}"
        )
    return lines


def notes(report: LabelledReport) -> list[str]:
    """Return a sentence for whatever is in no figure: truths that are no label, and images of which nobody says what they show."""
    sentences = [each.sentence() for each in report.unknown_truths[:CLASSES]]
    others = report.unknown_images - sum(each.images for each in report.unknown_truths[:CLASSES])
    if others:
        sentences.append(f"{others:,} more images have other truths that are no label of the model")
    if report.without_truth:
        sentences.append(f"of {report.without_truth:,} image{'s' * (report.without_truth != 1)} nobody says what they show")
    return sentences


def _show_mistakes(report: LabelledReport) -> None:
    console = results()
    for truth, answer, count in confused_pairs(report, SHOWN):
        console.print(f"confused {count:,} times: {_name(report.labels[truth])} → {_name(report.labels[answer])}")
    if report.mistakes:
        rows = table("surest mistakes", "truth", "answer", "probability", left=3)
        for row in report.mistakes[:SHOWN]:
            rows.add_row(one_line(printable(row.image), 90), _name(row.truth), _name(row.label), f"{row.probability:.4f}")
        console.print(rows)


def _lowest(report: LabelledReport) -> list[ClassCounts]:
    present = [each for each in report.classes if each.support]
    return sorted(present, key=lambda each: each.correct / each.support)[:CLASSES]


def _with_interval(share: float, interval: tuple[float, float]) -> str:
    return f"{share:.2%} (95 %: {interval[0]:.2%} to {interval[1]:.2%})"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.2%}"


def _name(label: str) -> str:
    return one_line(printable(label), NAME)
