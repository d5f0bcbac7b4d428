"""Reads a model's folder once, into a frozen value that is handed on: configuration, card, versions and what they say of themselves.

Nothing here is trusted: sizes are bounded, names stay inside their folder, and what is read is checked before it is used. No file of a
version is hashed before `check_files` is asked to.
"""

from dataclasses import dataclass, field
from pathlib import Path

from sightline.card import ModelCard
from sightline.errors import ContractError, RepositoryError
from sightline.host.files import read_text, reason_of
from sightline.in_triton import IMAGE, REFORMAT
from sightline.repository.card_config import card_in, shared_files
from sightline.repository.config import ModelConfig
from sightline.repository.config_text import parse_config
from sightline.repository.hashes import FileHashes
from sightline.repository.layout import CARD_FILE, CONFIG_FILE, MAX_TEXT_BYTES, REPORT_FILE, version_numbers
from sightline.repository.report import VersionReport, parse_report


@dataclass(frozen=True)
class ModelVersion:
    """One version of a model, as its folder describes it."""

    folder: Path
    described: VersionReport | None = field(repr=False)
    """None if there is no report that can be trusted."""
    damage: str = ""
    """Why there is none, as a sentence."""

    @property
    def number(self) -> int:
        """The version's number."""
        return int(self.folder.name)

    @property
    def report(self) -> VersionReport:
        """What the version says of itself. Raises RepositoryError if it says nothing that can be trusted."""
        if self.described is None:
            raise RepositoryError(self.damage)
        return self.described


@dataclass(frozen=True)
class ModelFolder:
    """A model's folder that was read once. The model need not have been published by Sightline."""

    folder: Path
    config: ModelConfig
    versions: tuple[ModelVersion, ...]
    """Oldest first."""

    @property
    def name(self) -> str:
        """The model's name."""
        return self.folder.name

    @property
    def numbers(self) -> tuple[int, ...]:
        """The numbers of the versions, oldest first."""
        return tuple(version.number for version in self.versions)

    @property
    def served(self) -> tuple[int, ...]:
        """The numbers of the versions that Triton serves, oldest first."""
        return self.config.policy.served(self.numbers)

    def version(self, number: int) -> ModelVersion:
        """Return a version. Raises RepositoryError that lists the versions if there is none of that number."""
        for version in self.versions:
            if version.number == number:
                return version
        numbers = ", ".join(map(str, self.numbers)) or "none"
        raise RepositoryError(f"{self.name} in {self.folder.parent} has no version {number}: there is {numbers}")


@dataclass(frozen=True)
class PublishedModel(ModelFolder):
    """A model that Sightline published: its folder holds a card, and nothing in it contradicts the card."""

    card: ModelCard


def read_folder(folder: Path) -> ModelFolder:
    """Read the folder of any model. Raises RepositoryError if it holds no configuration, or none that can be read."""
    where = f"{CONFIG_FILE} of model {folder.name} in {folder.parent}"
    try:
        config = parse_config(_text(folder / CONFIG_FILE), where)
    except ContractError as error:
        raise RepositoryError(str(error)) from None
    return ModelFolder(folder, config, read_versions(folder, files=config.platform != "ensemble"))


def read_published(folder: Path) -> PublishedModel | None:
    """Read the folder of a model that Sightline published; None if there is no such model yet.

    Raises RepositoryError if the folder holds no published model, or one whose files contradict each other.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return None
    model = read_folder(folder)
    where = f"{CONFIG_FILE} of model {folder.name} in {folder.parent}"
    try:
        card = card_in(model.config, where)
    except ContractError as error:
        raise RepositoryError(str(error)) from None
    if card.name != folder.name:
        raise RepositoryError(f"{where}: it belongs to a model called {card.name}. Restore the file that was published")
    for name, content in shared_files(card).items():
        if (folder / name).exists() and _text(folder / name) != content:
            raise RepositoryError(
                f"{folder / name} does not hold what {CONFIG_FILE} beside it says: one of the two was changed after it was published. "
                "Restore it, or delete it and export again"
            )
    return PublishedModel(model.folder, model.config, model.versions, card)


def model_named(repository: Path, name: str) -> PublishedModel:
    """Read the model `name` of `repository`. Raises RepositoryError, which names those that there are."""
    for suffix in (IMAGE, REFORMAT):
        base = name.removesuffix(suffix)
        if base != name and (repository / base / CARD_FILE).is_file() and not (repository / name / CARD_FILE).exists():
            raise RepositoryError(f"{name} only takes encoded images for {base} and has no versions of its own: name {base}")
    # The name comes from a command line, and must not lead out of the repository.
    inside = Path(name).name == name and name not in ("", ".", "..")
    model = read_published(repository / name) if repository.is_dir() and inside else None
    if model is None:
        names = sorted(entry.name for entry in repository.iterdir() if (entry / CARD_FILE).is_file()) if repository.is_dir() else []
        raise RepositoryError(f"there is no model {name} in {repository}: it has {', '.join(names) or 'none'}")
    return model


def read_versions(model: Path, *, files: bool = True) -> tuple[ModelVersion, ...]:
    """Read what the versions in a model's folder say of themselves, oldest first; no file is hashed. Raises RepositoryError.

    An ensemble's versions hold no `files`.
    """
    try:
        return tuple(read_version(model / str(number), files=files) for number in version_numbers(model))
    except OSError as error:
        raise RepositoryError(f"{model} cannot be read: {reason_of(error)}") from None


def read_version(folder: Path, *, files: bool = True) -> ModelVersion:
    """Read one version; no file is hashed. One that says nothing of itself, or nothing that can be trusted, is given with its damage."""
    file = folder / REPORT_FILE
    try:
        report = parse_report(read_text(file, MAX_TEXT_BYTES))
    except OSError as error:
        return ModelVersion(folder, None, f"{file} cannot be read: {reason_of(error)}")
    except RepositoryError as error:
        return ModelVersion(folder, None, str(_damaged(folder, f"{REPORT_FILE} is {error}")))
    if (report.model, str(report.version)) != (folder.parent.name, folder.name):
        return ModelVersion(folder, None, str(_damaged(folder, f"{REPORT_FILE} belongs to another version")))
    if files and not report.files:
        return ModelVersion(folder, None, str(_damaged(folder, f"{REPORT_FILE} lists no files")))
    return ModelVersion(folder, report)


def check_files(version: ModelVersion, hashes: FileHashes | None = None) -> None:
    """Raise RepositoryError, naming the file, unless every file of the version is the one that was published."""
    known = hashes or FileHashes()
    root = version.folder.resolve()
    for name, published in sorted(version.report.files.items()):
        file = version.folder / name
        if not file.is_file() or not file.resolve().is_relative_to(root):
            raise _damaged(version.folder, f"{name} is missing")
        try:
            actual = known.of(file)
        except OSError as error:
            raise _damaged(version.folder, f"{name} cannot be read: {reason_of(error)}") from None
        if actual != published:
            raise _damaged(version.folder, f"{name} was changed after it was published (sha256 {actual:.12}…, published {published:.12}…)")


def card_fields(card: ModelCard) -> dict[str, object]:
    """Return the card's fields as JSON values, those of the preprocessing first and called `preprocess.mean` and so on: for comparing."""
    fields = card.model_dump(mode="json")
    return {**{f"preprocess.{name}": value for name, value in fields.pop("preprocess").items()}, **fields}


def _text(file: Path) -> str:
    try:
        return read_text(file, MAX_TEXT_BYTES)
    except OSError as error:
        raise RepositoryError(f"{file} cannot be read: {reason_of(error)}") from None


def _damaged(folder: Path, reason: str) -> RepositoryError:
    return RepositoryError(
        f"version {folder.name} of model {folder.parent.name} in {folder.parent.parent} is damaged: {reason}. "
        "Restore its files, or delete its folder and export again"
    )
