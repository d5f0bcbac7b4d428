"""Chooses what to serve of a model repository, before Triton starts: a clear sentence now is better than Triton's log later.

Each model's folder is read once, and each published file hashed at most once, for everything that follows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from sightline.card import CARD_KEY, PICTURES_OF, ModelCard, unseal
from sightline.errors import ContractError, RepositoryError, ServerStartError
from sightline.host.cpu import integer_instructions
from sightline.host.files import reason_of
from sightline.in_triton import IMAGE, REFORMAT
from sightline.repository.config import VersionPolicy
from sightline.repository.hashes import FileHashes
from sightline.repository.integrity import check_shared
from sightline.repository.layout import CONFIG_FILE, ONNX_FILE, REPORT_FILE, model_folders
from sightline.repository.read import ModelFolder, ModelVersion, check_files, read_folder
from sightline.repository.signing import demand_signature
from sightline_serving.selection.int8_check import reason_not_fit


@dataclass(frozen=True)
class SelectedModel:
    """A model and the versions of it that Triton serves, oldest first."""

    name: str
    versions: tuple[int, ...]


@dataclass(frozen=True)
class Selection:
    """The models to serve."""

    models: tuple[SelectedModel, ...]
    folders: Mapping[str, ModelFolder] = field(repr=False)
    """Of the models, by their names. The configuration in it is the one to serve with."""
    ignored: tuple[str, ...] = ()
    """Folders that hold no model and are left out."""
    substituted: Mapping[str, str] = field(default_factory=dict)
    """Models of which another version is served than their `config.pbtxt` asks for → why, as a sentence."""
    hashes: FileHashes = field(default_factory=FileHashes, repr=False, compare=False)
    """Of the files that were looked at."""


def select_models(repository: Path, only: Sequence[str] = (), *, verify_hashes: bool = True, unreported: bool = False) -> Selection:
    """Return what `repository` can serve (`only`: nothing but the models of these names).

    Raises ServerStartError if it is missing or empty, or if a model in it has no version or no readable config; ContractError if
    a file of a version to be served, or one beside it, is not the one that was published, or if a version has no report that says
    which were, unless `unreported` ones are admitted.
    """
    try:
        return _selection(repository, only, verify_hashes=verify_hashes, unreported=unreported)
    except OSError as error:
        raise ServerStartError(f"the model repository cannot be read: {reason_of(error)}: {error.filename}") from None


def _selection(repository: Path, only: Sequence[str], *, verify_hashes: bool, unreported: bool) -> Selection:
    if not repository.is_dir():
        raise ServerStartError(
            f"there is no model repository at {repository}: publish a model there with `sightline export`, or name another"
        )
    if (repository / CONFIG_FILE).is_file():
        raise ServerStartError(f"{repository} is the folder of one model: name the model repository around it, {repository.parent}")
    published = {folder.name: folder for folder in model_folders(repository)}
    unknown = sorted(set(only) - set(published))
    if unknown:
        raise ServerStartError(f"the model repository {repository} has no model {unknown[0]}: it has {', '.join(published) or 'none'}")
    folders = {name: _read(folder) for name, folder in published.items() if not only or name in only or (folder / CONFIG_FILE).is_file()}
    folders = {name: folder for name, folder in folders.items() if not only or name in only or _takes_images_for(folder, only)}
    if not folders:
        raise ServerStartError(f"the model repository {repository} holds no model: publish one there with `sightline export`")
    names = sorted(entry.name for entry in repository.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    ignored = tuple(name for name in names if name not in published)
    return replace(select_versions(folders, verify_hashes=verify_hashes, unreported=unreported), ignored=ignored)


def select_versions(folders: Mapping[str, ModelFolder], *, verify_hashes: bool = True, unreported: bool = False) -> Selection:
    """Return which versions of the models in `folders` (by name) can be served. Raises ServerStartError and ContractError, as above."""
    hashes, instructions = FileHashes(), integer_instructions()
    models, substituted, folders = [], {}, dict(folders)
    for name, folder in folders.items():
        wanted = _served(folder)
        model = SelectedModel(name, _fitting(folder, wanted, instructions))
        if model.versions != wanted:
            reason = reason_not_fit(folder.version(wanted[-1]), instructions)
            substituted[name] = f"{name} version {model.versions[-1]} is served instead of version {wanted[-1]}: {reason}"
            policy = VersionPolicy("specific", versions=model.versions)
            folders[name] = replace(folder, config=replace(folder.config, policy=policy))
        models.append(model)
        if verify_hashes:
            for number in model.versions:
                _check_published(folder, folder.version(number), hashes, unreported=unreported)
            _check_beside(folder, folders, hashes)
    return Selection(tuple(models), folders, (), substituted, hashes)


def demand_signatures(repository: Path, selection: Selection, key_file: Path) -> None:
    """Raise ContractError unless every selected model is as the owner of the public key signed it; DataError for a file that is no key."""
    signed: set[str] = set()
    for name, folder in selection.folders.items():
        sealed = folder.config.parameters.get(PICTURES_OF)
        signed_as = name if sealed is None else unseal(sealed, f"{CONFIG_FILE} of model {name}").name
        # What takes encoded images for a model is signed with it.
        if sealed is not None and name not in (signed_as + REFORMAT, signed_as + IMAGE):
            raise ContractError(f"{name} is not served: it takes encoded images for {signed_as}, and has no name for that")
        signed.add(signed_as)
    for name in sorted(signed):
        try:
            demand_signature(repository, name, key_file, selection.hashes)
        except RepositoryError as error:
            raise ContractError(f"{name} is not served: {error}") from None


def _read(folder: Path) -> ModelFolder:
    if not (folder / CONFIG_FILE).is_file():
        raise ServerStartError(f"model {folder.name} has no {CONFIG_FILE} in {folder}: export it again, or serve other models")
    try:
        return read_folder(folder)
    except RepositoryError as error:
        raise ServerStartError(str(error)) from None


def _takes_images_for(folder: ModelFolder, only: Sequence[str]) -> bool:
    """Whether the model takes encoded images for one of those named, and so comes with it."""
    sealed = folder.config.parameters.get(PICTURES_OF)
    return sealed is not None and unseal(sealed, f"{CONFIG_FILE} of model {folder.name}").name in only


def _served(folder: ModelFolder) -> tuple[int, ...]:
    """The versions that Triton would serve. Raises ServerStartError if there is none."""
    if not folder.versions:
        raise ServerStartError(f"model {folder.name} has no version (1/, 2/ …) in {folder.folder}: export it, or serve other models")
    file = folder.folder / CONFIG_FILE
    if folder.config.name not in ("", folder.name):
        raise ServerStartError(f"{file} names the model {folder.config.name}, its folder {folder.name}: the two must be the same")
    if not folder.served:
        wanted = ", ".join(map(str, folder.config.policy.versions))
        numbers = ", ".join(map(str, folder.numbers))
        raise ServerStartError(f"the version_policy in {file} asks for version {wanted}, but there is only {numbers}")
    return folder.served


def _fitting(folder: ModelFolder, wanted: Sequence[int], instructions: tuple[str, ...]) -> tuple[int, ...]:
    """Those of the wanted versions that this machine can compute; if there is none, the newest other one that it can.

    Raises ContractError if there is no such version at all.
    """
    fitting = [version.number for version in folder.versions if reason_not_fit(version, instructions) is None]
    selected = tuple(number for number in wanted if number in fitting) or tuple(fitting[-1:])
    if not selected:
        newest = folder.version(wanted[-1])
        raise ContractError(
            f"{folder.name} version {newest.number} is not served: {reason_not_fit(newest, instructions)}, and {folder.folder} holds no "
            "version to fall back on. Export it in FP32 too, or anew on this machine"
        )
    return selected


def _check_beside(folder: ModelFolder, folders: Mapping[str, ModelFolder], hashes: FileHashes) -> None:
    """Raise ContractError unless what lies beside the versions is what the card and the reports say."""

    def card_of(name: str) -> ModelCard | None:
        config = folders[name].config if name in folders else None
        sealed = config.parameters.get(CARD_KEY) if config is not None else None
        return None if sealed is None else unseal(sealed, f"{CONFIG_FILE} of model {name}")

    try:
        check_shared(folder, hashes, card_of)
    except RepositoryError as error:
        raise ContractError(f"{folder.name} is not served: {error}") from None


def _check_published(folder: ModelFolder, version: ModelVersion, hashes: FileHashes, *, unreported: bool) -> None:
    """Raise ContractError unless the version's files are the published ones.

    A version without a report was not published by `sightline export`, or has lost it: nothing is known about its files.
    """
    refused = f"{folder.name} version {version.number} is not served"
    if not (version.folder / REPORT_FILE).is_file():
        if unreported:
            return
        raise ContractError(
            f"{refused}: it has no {REPORT_FILE}, so that nobody can say whether its files are those that were published. Restore it, "
            "export the model again, or insist on it (allow-unreported) if it was not made by `sightline export`"
        )
    try:
        check_files(version, hashes)
    except RepositoryError as error:
        raise ContractError(f"{refused}: {error}") from None
    file = folder.config.default_file or ONNX_FILE
    if folder.config.platform != "ensemble" and file not in version.report.files:
        raise ContractError(f"{refused}: {version.folder / REPORT_FILE} does not list {file}. Export the model again")
