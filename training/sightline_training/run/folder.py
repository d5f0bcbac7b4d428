"""Who may write into a run folder, and what may be continued there: one process at a time, one set of settings, only our files."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from sightline.errors import DataError, UsageError
from sightline_training.files import read_json
from sightline_training.run.run import CARD, REPORT, SETTINGS, WEIGHTS

METRICS: Final = "metrics.csv"
CHECKPOINTS: Final = "checkpoints"
PIXELS: Final = "pixels"
CURVES, CONFUSION, MISTAKES, AUGMENTATIONS = "curves.png", "confusion.png", "mistakes.png", "augmentations.png"

OURS: Final = (REPORT, WEIGHTS, CARD, METRICS, CHECKPOINTS, PIXELS, CURVES, CONFUSION, MISTAKES, AUGMENTATIONS, SETTINGS)
"""All that a run writes, in the order in which it is deleted: the report first, so that no half-deleted run looks complete."""


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Make the folder and hold it for this process until the block ends; an empty one is taken away again.

    Raises UsageError if another process holds it, or if it cannot be made. The kernel drops the hold of a killed process.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise UsageError(f"the run folder {folder} cannot be made: {error.strerror}") from None
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(f"another `sightline train` is at work in {folder}. Wait for it, or name another with `--run`.") from None
        yield
    finally:
        with suppress(OSError):
            folder.rmdir()
        os.close(handle)


def begun_with(folder: Path) -> dict[str, Any] | None:
    """The settings of the run in this folder; None if the folder is empty. Raises UsageError if something else lies there."""
    if (folder / SETTINGS).is_file():
        return read_json(folder / SETTINGS)
    strangers = sorted(path.name for path in folder.iterdir() if path.name not in OURS and not path.name.startswith("."))
    if strangers:
        raise UsageError(f"{folder} is no run folder: it holds {', '.join(strangers[:3])}. Name a new or empty one with `--run`.")
    return None


def demand_same(begun: dict[str, Any], wanted: dict[str, Any], folder: Path) -> None:
    """Raise UsageError, naming each setting that differs, unless the run in the folder has the wanted settings."""
    differing = [f"{name} was {begun.get(name)}, now {wanted[name]}" for name in wanted if begun.get(name) != wanted[name]]
    if differing:
        raise UsageError(
            f"{folder} holds a run with other settings: {'; '.join(differing)}. "
            "Begin anew with `--restart`, or name another folder with `--run`."
        )


def clear(folder: Path) -> None:
    """Delete what a run wrote, and nothing else. Raises DataError if that fails."""
    try:
        for name in OURS:
            path = folder / name
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
    except OSError as error:
        raise DataError(f"{folder}: the earlier run cannot be deleted: {error}") from None


def drop_pixels(folder: Path) -> None:
    """Delete the pixels that were too many for the memory."""
    shutil.rmtree(folder / PIXELS, ignore_errors=True)
