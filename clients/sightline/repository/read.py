"""Reads a model repository: which versions a model has, what they say of themselves, and whether their files are still the published ones.

Nothing here is trusted: sizes are bounded, names stay inside their folder, and what is read is checked before it is used.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sightline.card import ModelCard, seal
from sightline.errors import ContractError, RepositoryError
from sightline.repository.config import LABELS_FILE, Published, read_config

CONFIG_FILE: Final = "config.pbtxt"
CARD_FILE: Final = "card.json"
REPORT_FILE: Final = "report.json"
SCHEMA: Final = 1
"""Of `report.json`."""

FROM: Final = "from"
"""The key of a report's provenance under which a model that was not trained here says what it was brought from."""

MAX_BYTES: Final = 64 * 1024 * 1024
"""Of a text that is read here: a card of 16 MiB, escaped, still fits."""

VERSION: Final = re.compile(r"[1-9][0-9]{0,17}")
"""Folder names that Triton takes for versions (its user guide, "Model Repository"), up to what fits its 64 bits."""

FILE_NAME: Final = re.compile(r"(?!\.)[A-Za-z0-9._-]+(/(?!\.)[A-Za-z0-9._-]+)*")
SHA256: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Model:
    """A published model, without its versions."""

    folder: Path
    card: ModelCard
    config: Published


@dataclass(frozen=True)
class Version:
    """One published version."""

    number: int
    folder: Path
    report: Mapping[str, Any]

    @property
    def files(self) -> Mapping[str, str]:
        """sha256 of every file by its name inside of the folder, as published."""
        files: Mapping[str, str] = self.report["files"]
        return files


def read_model(folder: Path) -> Model | None:
    """Read the files that all versions of a model share; None if there is no such model yet.

    Raises RepositoryError if the folder holds no published model, or one whose files contradict each other.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return None
    where = f"{CONFIG_FILE} of model {folder.name} in {folder.parent}"
    try:
        config = read_config(read_text(folder / CONFIG_FILE), where)
    except ContractError as error:
        raise RepositoryError(str(error)) from None
    if config.card.name != folder.name:
        raise RepositoryError(f"{where}: it belongs to a model called {config.card.name}. Restore the file that was published")
    for name, content in shared_files(config.card).items():
        if (folder / name).exists() and read_text(folder / name) != content:
            raise RepositoryError(
                f"{folder / name} does not hold what {CONFIG_FILE} beside it says: one of the two was changed after it was published. "
                "Restore it, or delete it and export again"
            )
    return Model(folder, config.card, config)


def shared_files(card: ModelCard) -> dict[str, str]:
    """Name and content of the files beside `config.pbtxt` that follow from the card."""
    return {CARD_FILE: seal(card), LABELS_FILE: "".join(f"{label}\n" for label in card.labels)}


def fields_of(card: ModelCard) -> dict[str, object]:
    """The card's fields as JSON values, those of the preprocessing first and called `preprocess.mean` and so on: for comparing cards."""
    fields = card.model_dump(mode="json")
    return {**{f"preprocess.{name}": value for name, value in fields.pop("preprocess").items()}, **fields}


def versions(model: Path) -> list[int]:
    """The numbers of the versions in a model's folder, oldest first."""
    return sorted(int(each.name) for each in model.iterdir() if VERSION.fullmatch(each.name) and each.is_dir())


def read_version(folder: Path) -> Version:
    """Read what a version says of itself. Raises RepositoryError if it says nothing, or nothing that can be trusted; no file is hashed."""
    try:
        report = json.loads(read_text(folder / REPORT_FILE))
    except (ValueError, RecursionError):
        raise _damaged(folder, f"{REPORT_FILE} is not JSON") from None
    if not isinstance(report, dict) or report.get("schema") != SCHEMA:
        raise _damaged(folder, f"{REPORT_FILE} is no report of schema {SCHEMA}")
    if (report.get("model"), str(report.get("version"))) != (folder.parent.name, folder.name):
        raise _damaged(folder, f"{REPORT_FILE} belongs to another version")
    files = report.get("files")
    if not isinstance(files, dict) or not files:
        raise _damaged(folder, f"{REPORT_FILE} lists no files")
    for name, digest in files.items():
        if not FILE_NAME.fullmatch(name) or not isinstance(digest, str) or not SHA256.fullmatch(digest):
            raise _damaged(folder, f"{REPORT_FILE} lists {name[:100]!r}, which is no file of a version with its sha256")
    return Version(int(folder.name), folder, report)


def check_files(version: Version) -> None:
    """Raise RepositoryError, naming the file, unless every file of the version is the one that was published."""
    root = version.folder.resolve()
    for name, published in sorted(version.files.items()):
        file = version.folder / name
        if not file.is_file() or not file.resolve().is_relative_to(root):
            raise _damaged(version.folder, f"{name} is missing")
        with file.open("rb") as opened:
            found = hashlib.file_digest(opened, "sha256").hexdigest()
        if found != published:
            raise _damaged(version.folder, f"{name} was changed after it was published (sha256 {found[:12]}…, published {published[:12]}…)")


def read_text(file: Path) -> str:
    """Read a UTF-8 text of at most MAX_BYTES. Raises RepositoryError."""
    try:
        with file.open("rb") as opened:
            content = opened.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise RepositoryError(f"{file}: larger than {MAX_BYTES:,} bytes, the most that is read")
        return content.decode()
    except OSError as error:
        raise RepositoryError(f"{file} cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise RepositoryError(f"{file}: not UTF-8 text") from None


def _damaged(folder: Path, reason: str) -> RepositoryError:
    return RepositoryError(
        f"version {folder.name} of model {folder.parent.name} in {folder.parent.parent} is damaged: {reason}. "
        "Restore its files, or delete its folder and export again"
    )
