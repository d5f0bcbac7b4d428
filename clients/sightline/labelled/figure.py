"""Draws the confusion matrix of a report: with counts for a few classes; for many, a heat map beside the classes confused most often."""

import io
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from sightline.host.text import one_line, printable
from sightline.labelled.report import LabelledReport

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI: Final = 120
NUMBERED_UP_TO: Final = 30
"""Classes; with more, counts in the cells could not be read."""
MOST_SQUARES: Final = 200
"""On a side of a heat map; of more classes several share a square, or a single confusion could not be seen."""
PAIRS: Final = 25
"""Confusions that are listed beside a heat map."""
UNKNOWN_ROWS: Final = 8
"""Truths that are no label and get a row of their own."""
NAME: Final = 28
"""Letters of a label that are drawn; longer ones are cut."""
CELL: Final = 0.45
"""Inches."""
LETTER: Final = 0.085
"""Inches."""
ROOT: Final = 0.35
"""Exponent of the scale of colours: a share of 1 % is still seen."""

Matrix = npt.NDArray[np.int64]


def confusion_png(report: LabelledReport, subject: str) -> bytes:
    """Return the PNG file of `confusion_figure`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure = confusion_figure(report, subject)
    FigureCanvasAgg(figure)
    content = io.BytesIO()
    with warnings.catch_warnings():
        # The bundled font lacks letters of some scripts, and draws a box for each.
        warnings.filterwarnings("ignore", message="Glyph")
        figure.savefig(content, format="png", dpi=DPI)
    return content.getvalue()


def confusion_figure(report: LabelledReport, subject: str) -> "Figure":
    """Draw a report's confusion matrix; `subject` heads it, as `mnist version 2 on photos`.

    Row: true class, column: answer; colour: the share of the row. What could not be read is the last column, truths that are no label
    are the last rows; beside a heat map of many classes both are told in the title.
    """
    few = len(report.labels) <= NUMBERED_UP_TO
    figure = _numbered(report) if few else _overview(report)
    title = _title(report, subject)
    hidden = report.unknown_images - sum(each.images for each in report.unknown_truths[:UNKNOWN_ROWS]) if few else report.unknown_images
    if hidden:
        title += f"\nimages with truths that are no label, not drawn: {hidden:,}"
    figure.suptitle(title, parse_math=False)
    return figure


def _title(report: LabelledReport, subject: str) -> str:
    lines = [one_line(printable(subject), 90)] if subject else []
    if report.accuracy is None or report.interval_95 is None:
        return "\n".join([*lines, "no image that could be read shows a known class"])
    low, high = report.interval_95
    lines.append(f"accuracy {report.accuracy:.2%} ({low:.2%} to {high:.2%})")
    lines.append(f"{report.answered:,} images" + (f", and {report.unreadable:,} unreadable" if report.unreadable else ""))
    return "\n".join(lines)


def _numbered(report: LabelledReport) -> "Figure":
    from matplotlib.figure import Figure

    counts, rows, columns = _with_margins(report)
    beside, below = (0.8 + LETTER * max(map(len, names)) for names in (rows, columns))
    side = CELL * max(2, len(report.labels))
    width, height = side + CELL * (len(columns) - len(report.labels)), side + CELL * (len(rows) - len(report.labels))
    figure = Figure(figsize=(max(4.6, width + beside), height + below + 0.8), layout="constrained")
    axes = figure.subplots()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    _paint(axes, shares)
    upright = max(map(len, columns)) > 3
    axes.set_xticks(range(len(columns)), columns, rotation=90 if upright else 0, parse_math=False)
    axes.set_yticks(range(len(rows)), rows, parse_math=False)
    for at in range(len(report.labels), len(rows)):
        axes.get_yticklabels()[at].set_fontstyle("italic")
    if len(rows) > len(report.labels):
        axes.axhline(len(report.labels) - 0.5, color="grey", linewidth=0.8)
    if len(columns) > len(report.labels):
        axes.get_xticklabels()[-1].set_fontstyle("italic")
        axes.axvline(len(report.labels) - 0.5, color="grey", linewidth=0.8)
    for row, column in np.argwhere(counts > 0):
        colour = "white" if shares[row, column] > 0.3 else "black"
        axes.text(column, row, _short(int(counts[row, column])), ha="center", va="center", color=colour, fontsize=8)
    return figure


def _overview(report: LabelledReport) -> "Figure":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 8.4), layout="constrained")
    heat, listed = figure.subplots(1, 2, width_ratios=(1.25, 1))
    classes = len(report.labels)
    squares = min(classes, MOST_SQUARES)
    counts = np.zeros((squares, squares), np.int64)
    for (truth, answer), count in report.confusion.items():
        counts[truth * squares // classes, answer * squares // classes] += count
    _paint(heat, counts / np.maximum(counts.sum(axis=1, keepdims=True), 1))
    shared = "" if squares == classes else f"; a square is {classes / squares:.3g} classes wide"
    heat.set_title(f"{classes:,} classes in the order of the labels{shared}", fontsize=10)
    heat.set_xticks([])
    heat.set_yticks([])
    _list_pairs(listed, report)
    return figure


def _list_pairs(axes: "Axes", report: LabelledReport) -> None:
    pairs = confused_pairs(report, PAIRS)
    names = [f"{_name(report.labels[truth])} → {_name(report.labels[answer])}" for truth, answer, _ in pairs]
    axes.barh(range(len(pairs)), [count for _, _, count in pairs], color="#6aaed6")
    axes.set_yticks(range(len(pairs)), names, parse_math=False, fontsize=9)
    axes.set_ylim(PAIRS - 0.4, -0.6)
    for at, (_, _, count) in enumerate(pairs):
        axes.text(count, at, f" {_short(count)}", va="center", fontsize=8)
    axes.set_title("confused most often: true class → answer, images" if pairs else "no image was answered wrongly", fontsize=10)
    axes.set_xticks([])
    axes.margins(x=0.12)
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.tick_params(length=0)


def _paint(axes: "Axes", shares: npt.NDArray[np.float64]) -> None:
    from matplotlib.colors import PowerNorm

    axes.imshow(shares, cmap="Blues", norm=PowerNorm(ROOT, 0, 1), interpolation="nearest")
    axes.set(xlabel="answer", ylabel="true class")
    axes.tick_params(length=0)


def _with_margins(report: LabelledReport) -> tuple[Matrix, list[str], list[str]]:
    """Return the counts, and the names of their rows and columns: the labels, then what is none."""
    unknown = report.unknown_truths[:UNKNOWN_ROWS]
    unreadable = [each.unreadable for each in report.classes] + [each.unreadable for each in unknown]
    rows = [_name(label) for label in report.labels] + [f"{_name(each.truth)} (no label)" for each in unknown]
    columns = [_name(label) for label in report.labels]
    counts = np.zeros((len(rows), len(columns) + 1), np.int64)
    for (truth, answer), count in report.confusion.items():
        counts[truth, answer] = count
    indices = {label: index for index, label in enumerate(report.labels)}
    for row, each in enumerate(unknown, len(report.labels)):
        for label, count in each.answers.items():
            counts[row, indices[label]] = count
    counts[:, -1] = unreadable
    return (counts, rows, [*columns, "unreadable"]) if any(unreadable) else (counts[:, :-1], rows, columns)


def confused_pairs(report: LabelledReport, limit: int) -> Sequence[tuple[int, int, int]]:
    """Return (true class, answered class, images) of the pairs that were confused most often, in falling order."""
    pairs = ((truth, answer, count) for (truth, answer), count in report.confusion.items() if truth != answer)
    return sorted(pairs, key=lambda pair: (-pair[2], pair[0], pair[1]))[:limit]


def _name(label: str) -> str:
    return one_line(printable(label), NAME)


def _short(count: int) -> str:
    """At most four letters: 9999, 12k, 3M."""
    if count < 10_000:
        return str(count)
    return f"{count / 1e3:.0f}k" if count < 1_000_000 else f"{count / 1e6:.0f}M"
