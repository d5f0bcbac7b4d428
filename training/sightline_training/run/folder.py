"""Who may write into a run folder, and what may be continued there: one process at a time, one set of settings, only our files."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from sightline.errors import DataError, MachineError, UsageError
from sightline.host.files import read_json, reason_of, remove_leftovers, write_atomically
from sightline.repository.layout import CARD_FILE, REPORT_FILE
from sightline_training.run.json_text import json_text
from sightline_training.run.report import RunSettings

REPORT, CARD = REPORT_FILE, CARD_FILE
"""Called as in a model repository."""
WEIGHTS, SETTINGS, METRICS = "weights.safetensors", "settings.json", "metrics.csv"
CHECKPOINTS: Final = "checkpoints"
PIXELS: Final = "pixels"
CURVES, CONFUSION, MISTAKES, AUGMENTATIONS = "curves.png", "confusion.png", "mistakes.png", "augmentations.png"

ALL_NAMES: Final = (REPORT, WEIGHTS, CARD, METRICS, CHECKPOINTS, PIXELS, CURVES, CONFUSION, MISTAKES, AUGMENTATIONS, SETTINGS)
"""All that a run writes, in the order in which it is deleted: the report first, so that no half-deleted run looks complete."""

OWN_IMAGES: Final = "own_pictures"
"""The key in settings.json under which the folder of a user's own images stands."""

MAX_SETTINGS_BYTES: Final = 1024 * 1024


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Make the folder and hold it for this process until the block ends; an empty one is taken away again.

    Raises UsageError if another process holds it, MachineError if it cannot be made. The system drops the hold of a killed process.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
    except OSError as error:
        raise MachineError(f"the run folder {folder} cannot be made: {reason_of(error)}.", settings=("folder",)) from None
    try:
        if not _locked(handle):
            raise UsageError(
                f"another training is at work in the run folder {folder}. Wait for it, or name another folder.", settings=("folder",)
            )
        yield
    finally:
        with suppress(OSError):
            folder.rmdir()
        os.close(handle)


def begun_with(folder: Path) -> dict[str, object] | None:
    """Return what settings.json of the run in this folder holds; None if the folder is empty.

    Raises UsageError if something else lies there, DataError if the file cannot be read.
    """
    if (folder / SETTINGS).is_file():
        return _read_settings(folder)
    strangers = sorted(path.name for path in folder.iterdir() if path.name not in ALL_NAMES and not path.name.startswith("."))
    if strangers:
        raise UsageError(
            f"{folder} is no run folder: it holds {', '.join(strangers[:3])}. Name a new or an empty one.", settings=("folder",)
        )
    return None


def begin(folder: Path, settings: RunSettings, own_images: Path | None) -> None:
    """Write settings.json. Where a user's images lie is this machine's business: it stays out of the report, which is published."""
    content = settings.model_dump(mode="json") | ({} if own_images is None else {OWN_IMAGES: str(own_images)})
    write_atomically(folder / SETTINGS, json_text(content))


def own_images_of(folder: Path) -> Path | None:
    """Return the folder of the user's own images that a run was trained on; None if it was trained on others. Raises DataError."""
    path = _read_settings(folder).get(OWN_IMAGES) if (folder / SETTINGS).is_file() else None
    return Path(path) if isinstance(path, str) else None


def demand_same(begun: dict[str, object], settings: RunSettings, folder: Path) -> None:
    """Raise UsageError, naming each setting that differs, unless the run in the folder was begun with these settings.

    Fingerprints are compared only if `settings` has them: images are not read for a run that could not be continued anyway.
    """
    wanted = settings.model_dump(mode="json", exclude=None if settings.fingerprints else {"fingerprints"})
    differing = [f"{name} was {begun.get(name)}, now {wanted[name]}" for name in wanted if begun.get(name) != wanted[name]]
    if differing:
        raise UsageError(
            f"{folder} holds a run with other settings: {'; '.join(differing)}. Begin anew, or name another run folder.",
            settings=("restart", "folder"),
        )


def clear(folder: Path) -> None:
    """Delete what a run wrote, and nothing else. Raises MachineError if that fails."""
    try:
        for name in ALL_NAMES:
            path = folder / name
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
    except OSError as error:
        raise MachineError(f"{folder}: the earlier run cannot be deleted: {reason_of(error)}.") from None


def sweep(folder: Path) -> None:
    """Remove what a killed process left half written. Only for who holds the folder."""
    for name in ALL_NAMES:
        remove_leftovers(folder / name)


def drop_pixels(folder: Path) -> None:
    """Delete the pixels that were too many for the memory."""
    shutil.rmtree(folder / PIXELS, ignore_errors=True)


def _read_settings(folder: Path) -> dict[str, object]:
    try:
        return read_json(folder / SETTINGS, MAX_SETTINGS_BYTES)
    except OSError as error:
        raise DataError(f"{folder / SETTINGS}: cannot be read: {reason_of(error)}.") from None


def _locked(handle: int) -> bool:
    import fcntl  # Linux and macOS have it; on Windows a training stops above, where a folder cannot be opened

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
