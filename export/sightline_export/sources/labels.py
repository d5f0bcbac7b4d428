"""The labels of an imported model: read from a file, made distinct, and counted."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from sightline.errors import DataError, UsageError
from sightline.host.files import read_text, reason_of

MAX_LABELS_BYTES: Final = 16 * 1024 * 1024


def read_labels(path: Path) -> tuple[str, ...]:
    """Return the labels of a text file, a label a line; blank lines at the end are none. Raises DataError."""
    try:
        text = read_text(path, MAX_LABELS_BYTES)
    except OSError as error:
        raise DataError(f"{path}: the labels cannot be read: {reason_of(error)}") from None
    labels = [line.strip() for line in text.removeprefix("\ufeff").rstrip().split("\n")]
    for number, label in enumerate(labels, 1):
        if not label:
            raise DataError(f"{path}, line {number}: no label: there must be one on every line, in the order of the network's output")
    if doubles := [label for label, count in Counter(labels).items() if count > 1]:
        raise DataError(f"{path}: {doubles[0]!r:.80} stands on several lines: two classes cannot share a name")
    return tuple(labels)


def distinct_labels(labels: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the labels, with the number of the class behind those that occur twice (ImageNet has two cranes), and the note on it."""
    stripped = [" ".join(label.split()) for label in labels]
    counts = Counter(stripped)
    doubles = [label for label, count in counts.items() if count > 1]
    distinct = tuple(label if counts[label] == 1 else f"{label} ({number})" for number, label in enumerate(stripped))
    note = f"labels that several classes share got the number of their class behind them: {', '.join(doubles[:5])}"
    return distinct, (f"{note}{' and others' if len(doubles) > 5 else ''}",) if doubles else ()


def demand_label_count(labels: tuple[str, ...] | None, classes: int, model: str) -> None:
    """Raise UsageError unless the labels that were named, if any were, are as many as the network's classes."""
    if labels is not None and len(labels) != classes:
        raise UsageError(f"{len(labels):,} labels are named, but {model} tells {classes:,} classes apart")
