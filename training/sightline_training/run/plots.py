"""Draws the figures of a run folder: curves, confusion matrix, worst mistakes, augmentations. Without pyplot, so no state is shared."""

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from sightline.host.files import write_atomically
from sightline_training.datasets.image_set import Pixels

TRAIN, WATCHED, BEST = "#8a8f98", "#1f6feb", "#d1242f"
DPI: Final = 120
NUMBERED_UP_TO: Final = 30
"""Classes; with more, counts in the cells of the confusion matrix could not be read."""
MARKED_UP_TO: Final = 40
"""Epochs; of more, the line says it all."""
COLUMNS: Final = 8
INCHES: Final = 1.35
"""Of a column of a contact sheet."""
GAP: Final = 0.12
ABOVE: Final = 0.25
"""Room between the images of a contact sheet, and above each for its caption, in sides of an image."""
WIDE: Final = 15
"""Classes from which on a confusion matrix is wide enough for its title on one line."""


def draw_curves(path: Path, history: Sequence[dict[str, float]], best: dict[str, float], watched: str) -> None:
    """Draw loss and accuracy over the epochs of all stages, on training and on `watched` images; the kept epoch is marked.

    Training is measured as taught: with dropout, augmented.
    """
    figure = Figure(figsize=(10, 4), layout="constrained")
    epochs = range(1, len(history) + 1)
    kept = next(at for at, epoch in enumerate(history, 1) if epoch is best)
    mark = "." if len(history) <= MARKED_UP_TO else ""
    for axes, name in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        axes.plot(epochs, [epoch[f"train_{name}"] for epoch in history], color=TRAIN, marker=mark, label="training, as taught")
        axes.plot(epochs, [epoch[f"watched_{name}"] for epoch in history], color=WATCHED, marker=mark, label=watched)
        axes.axvline(kept, color=BEST, linewidth=1, linestyle=":")
        axes.plot([kept], [best[f"watched_{name}"]], "o", color=BEST, label=f"kept: epoch {kept}")
        for before, after, epoch in zip(history, history[1:], epochs, strict=False):
            if before["stage"] != after["stage"]:
                axes.axvline(epoch + 0.5, color="black", linewidth=0.8)
        axes.set(title=name.capitalize(), xlabel="epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        if name == "accuracy":
            axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=1))
            _set_limits_from_median(axes, history)
            axes.legend(loc="lower right", framealpha=1, edgecolor="none")
        else:
            axes.set_yscale("log")
    _save(figure, path)


def _set_limits_from_median(axes: Axes, history: Sequence[dict[str, float]]) -> None:
    """Show accuracies from the median's double error up: the first epochs' low ones would flatten what matters."""
    values = [epoch[f"{split}_accuracy"] for epoch in history for split in ("train", "watched")]
    lowest, typical = min(values), float(np.median(values))
    floor = max(lowest, 1 - 4 * (1 - typical)) if len(history) > 2 else lowest
    span = max(max(values) - floor, 1e-3)
    axes.set_ylim(floor - 0.05 * span, min(1.0, max(values)) + 0.08 * span)


def draw_confusion(path: Path, matrix: npt.NDArray[np.int64], labels: Sequence[str], title: str) -> None:
    """Draw a confusion matrix: row the true class, column the answer; colour is the share of the row, on a root scale."""
    classes = len(labels)
    side = min(14.0, max(5.0, 0.55 * classes + 1.5))
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.subplots()
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.35, 0, 1))
    axes.set(xlabel="answer", ylabel="true class")
    # Over the whole image, and broken: a few classes with long names leave little room over the squares.
    figure.suptitle(title.replace(": ", ":\n", 1) if classes < WIDE else title)
    if classes <= NUMBERED_UP_TO:
        long_names = max(map(len, labels)) > 3
        axes.set_xticks(range(classes), labels, rotation=90 if long_names else 0)
        axes.set_yticks(range(classes), labels)
        for row, column in np.argwhere(matrix > 0):
            colour = "white" if shares[row, column] > 0.3 else "black"
            axes.text(column, row, f"{matrix[row, column]}", ha="center", va="center", color=colour, fontsize=9)
    axes.tick_params(length=0)
    _save(figure, path)


def draw_mistakes(path: Path, pixels: Pixels, captions: Sequence[str], title: str) -> None:
    """Draw images [N, H, W, C] as the network gets them, each with its caption; none at all is said in words."""
    _grid(path, pixels, captions, title if len(pixels) else f"{title}: none")


def draw_augmentations(path: Path, rows: Mapping[str, npt.NDArray[np.float32]], title: str) -> None:
    """Draw rows of images, float32 [N, H, W, C] on the 0..255 scale, under the name of each; the same image stands in a column."""
    columns = len(next(iter(rows.values())))
    pixels = np.clip(np.rint(np.concatenate(list(rows.values()))), 0, 255).astype(np.uint8)
    captions = [name if at == 0 else "" for name in rows for at in range(columns)]
    _grid(path, pixels, captions, title, columns=columns)


def _grid(path: Path, pixels: Pixels, captions: Sequence[str], title: str, columns: int = COLUMNS) -> None:
    """Draw a contact sheet in one pair of axes, whose unit is the longer side of an image: axes for each image would take seconds."""
    rows = max(1, math.ceil(len(pixels) / columns))
    height, width = (side / max(pixels.shape[1:3]) for side in pixels.shape[1:3]) if len(pixels) else (1.0, 1.0)
    inches = INCHES * columns
    figure = Figure(figsize=(inches, inches * rows * (height + ABOVE) / (columns * (width + GAP)) + 0.5), layout="constrained")
    figure.suptitle(title)
    axes = figure.subplots()
    axes.axis("off")
    for place, (image, caption) in enumerate(zip(pixels, captions, strict=True)):
        left, top = place % columns * (width + GAP), place // columns * (height + ABOVE)
        grey = image[..., 0] if image.shape[2] == 1 else image
        axes.imshow(
            grey, cmap="gray", vmin=0, vmax=255, interpolation="nearest", extent=(left, left + width, top + height, top), aspect="equal"
        )
        axes.text(left + width / 2, top - ABOVE / 8, caption, fontsize=9, ha="center", va="bottom")
    axes.set(xlim=(0, columns * (width + GAP) - GAP), ylim=(rows * (height + ABOVE) - ABOVE, -ABOVE))
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    content = io.BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(content, format="png", dpi=DPI)
    write_atomically(path, content.getvalue())
