"""Finds the files of class folders on a disk that nobody vouches for: names that are no labels, links in circles, a million files."""

import os
import unicodedata
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from pydantic import ValidationError

from sightline.card import ModelCard, visible
from sightline.errors import DataError
from sightline.host.files import reason_of
from sightline.host.text import first_problem
from sightline.image import is_image_file, name_of
from sightline_training.datasets.duplicates import PIXELS

MAX_FILES: Final = 1_000_000
"""In or below one folder: more is no folder of class folders, but somebody's whole disk."""
LITTER: Final = frozenset({"thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "icon\r", "__macosx", "@eadir", "$recycle.bin"})
"""What file managers leave behind, in lower case; like hidden files it is passed over in silence."""


class Listing(NamedTuple):
    """The files of class folders."""

    places: list[list[str]]
    """Those of each class, sorted: paths below the folder, with `/`."""
    passed_over: list[str]
    """What is neither an image of a class nor litter, with the reason."""


def folders_in(folder: Path) -> list[str]:
    """The names of the folders in `folder`, sorted, less what is hidden or litter. Raises DataError if it cannot be read."""
    return [entry.name for entry in _entries(folder) if _leads_to_folder(entry)]


def classes_in(folder: Path, expected: Sequence[str] | None) -> dict[str, str]:
    """Label → name of its folder: in the order of `expected`, else by name. Unicode's two spellings of an accent are one label.

    Raises DataError if there are fewer than two, if they are not the expected ones, or if a name cannot be a label.
    """
    named: dict[str, str] = {}
    seen: dict[str, str] = {}
    for name in folders_in(folder):
        label = unicodedata.normalize("NFC", name)
        _demand_label(label, folder / name)
        if label in named:
            raise DataError(f"{name_of(folder)}: two folders are called {label}, spelled with different bytes. Rename or merge them.")
        if (other := seen.setdefault(visible(label), name)) != name:
            raise DataError(
                f"{name_of(folder)}: the folders {other!a} and {name!a} look the same, for they differ in letters that nobody "
                "sees. Rename or merge them."
            )
        named[label] = name
    if expected is not None:
        _demand_same(folder, named, expected)
    elif len(named) < 2:
        what = f"only one class folder ({next(iter(named))})" if named else "no class folders"
        raise DataError(
            f"{name_of(folder)}: it holds {what}. A classifier needs two or more: put the images of each class into a folder "
            "of its own, named after the class."
        )
    return {label: named[label] for label in (sorted(named) if expected is None else expected)}


def files_in(folder: Path, names: Sequence[str]) -> Listing:
    """The files below each of the class folders `names` of `folder`.

    A class folder may be a link; below it, links to folders are not followed, wherever they lead. Raises DataError if a folder cannot
    be read, or if there are more than MAX_FILES files.
    """
    listing = Listing([], [])
    for entry in _entries(folder):
        if not _leads_to_folder(entry):
            listing.passed_over.append(f"{name_of(entry.name)} (it lies in no class folder)")
    # No way through a link makes the images of one class those of another.
    owners = {_identity(folder / name): name for name in reversed(names)}
    seen = {_identity(folder)}
    count = 0
    for name in names:
        files: list[str] = []
        others: list[str] = []
        pending = [name]
        while pending:
            place = pending.pop()
            identity = _identity(folder / place)
            if identity in seen or owners.get(identity, place) != place:
                listing.passed_over.append(f"{name_of(place)}/ (a folder that was read already)")
                continue
            seen.add(identity)
            entries = _entries(folder / place)
            count += len(entries)
            if count > MAX_FILES:
                raise _too_many(folder)
            # The last is taken first: of two ways into one folder the first by name counts, whatever the file system's order.
            for entry in reversed(entries):
                below = f"{place}/{entry.name}"
                if not _leads_to_folder(entry):
                    # What is no regular file is tried, and refused with the system's words.
                    if is_image_file(entry.path) or not os.path.isfile(entry.path):
                        files.append(below)
                    else:
                        others.append(f"{name_of(below)} (not an image)")
                elif entry.is_symlink():
                    listing.passed_over.append(f"{name_of(below)}/ (a link to a folder, which is not followed)")
                else:
                    pending.append(below)
        listing.places.append(sorted(files))
        listing.passed_over.extend(sorted(others))
    return listing


def enumerated(items: Sequence[str], most: int) -> str:
    """The first so many, with commas, and how many more there are."""
    more = f", and {len(items) - most:,} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more


def _demand_label(label: str, folder: Path) -> None:
    try:
        ModelCard(name="folder", description="", labels=(label, f"{label}."), preprocess=PIXELS, max_batch_size=1)
    except ValidationError as error:
        reason = first_problem(error).removeprefix("labels[0] ")
        raise DataError(f"{name_of(folder)}: the folder's name cannot be a label: {reason}. Rename the folder.") from None


def _demand_same(folder: Path, names: Collection[str], expected: Sequence[str]) -> None:
    missing, strange = [name for name in expected if name not in names], sorted(set(names) - set(expected))
    if missing or strange:
        lacks = f"there is no folder for {enumerated(missing, 5)}" if missing else ""
        others = f"there is no class for the folder {enumerated(strange, 5)}" if strange else ""
        raise DataError(f"{name_of(folder)}: {' and '.join(filter(None, (lacks, others)))}. Expected: {enumerated(expected, 10)}.")


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """What lies in a folder, sorted by name, less what is hidden or litter."""
    entries = []
    try:
        with os.scandir(folder) as listing:
            for entry in listing:
                if not entry.name.startswith(".") and entry.name.lower() not in LITTER:
                    entries.append(entry)
                if len(entries) > MAX_FILES:
                    raise _too_many(folder)
    except OSError as error:
        raise DataError(f"{name_of(folder)}: the folder cannot be read: {reason_of(error)}.") from None
    return sorted(entries, key=lambda entry: entry.name)


def _too_many(folder: Path) -> DataError:
    return DataError(f"{name_of(folder)}: more than {MAX_FILES:,} files. Name the folder that holds the class folders.")


def _leads_to_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False  # a link to itself: it is tried as a file, and refused with the system's words


def _identity(folder: Path) -> tuple[int, int]:
    try:
        status = folder.stat()
    except OSError as error:
        raise DataError(f"{name_of(folder)}: the folder cannot be read: {reason_of(error)}.") from None
    return status.st_dev, status.st_ino
