"""Publishes a version of a model all at once: before the last rename nothing is visible, after it everything is, and safely on disk.

A new version is staged inside its model's folder, where Triton ignores names that are no numbers. A model's first version brings
its folder along, and in the root of a repository Triton loads every folder, whatever it is called (one that it cannot load keeps the
server from starting): that one is staged beside the repository. Only the holder of the repository's lock stages, so whatever staging
it finds was left by an export that was killed.
"""

import errno
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from sightline.card import ModelCard
from sightline.errors import MachineError, PublishError
from sightline.host.files import is_fault_of_machine, read_bytes, read_text, reason_of, sync_folder, write_new
from sightline.repository.card_config import notices_of_kept, shared_files
from sightline.repository.config import ModelConfig
from sightline.repository.config_text import config_text
from sightline.repository.layout import (
    CONFIG_FILE,
    GOLDEN_FOLDER,
    GOLDEN_INDEX,
    LOCK_FILE,
    MAX_TEXT_BYTES,
    NEW_CONFIG_FILE,
    PROBE_FILE,
    REPORT_FILE,
    STAGING_FOLDER,
    WARM_UP_FILE,
    WARM_UP_FOLDER,
)
from sightline.repository.read import PublishedModel, card_fields, read_published
from sightline.repository.report import VersionReport, report_text
from sightline.repository.samples import sample_of, text_with_sample, with_sample

Notify = Callable[[str], None]


@dataclass(frozen=True)
class PublishedVersion:
    """A version that is in the repository."""

    model: str
    number: int
    folder: Path
    report: VersionReport = field(repr=False)


def agreed_card(repository: Path, card: ModelCard, notify: Notify) -> ModelCard:
    """The card under which `card`'s model can be published in `repository`, which is made if it is missing.

    It is `card` itself, but for the description: the one that the model was first published with stays, since the card lies in
    every version and in the model's folder, and all copies are the same. Raises PublishError if another field differs, if the
    repository is damaged, or if nothing can be published there.
    """
    with locked(repository, notify):
        model = read_published(repository / card.name)
        if model is None:
            _probe(repository)
            return card
        return _agreed(model, card, notify)


def publish(
    repository: Path,
    card: ModelCard,
    config: ModelConfig,
    files: Mapping[str, bytes],
    report: VersionReport,
    notify: Notify = lambda _sentence: None,
    *,
    shared: Mapping[str, bytes] = MappingProxyType({}),
) -> PublishedVersion:
    """Publish `files` (name inside the version's folder → content) as the next version of `card`'s model.

    `report` is completed with schema, model, version, and the sha256 of every file. A new model gets `config` and the files `shared` that
    it names; an existing one keeps its own. Raises PublishError or RepositoryError, and nothing has changed.
    """
    with locked(repository, notify):
        model = read_published(repository / card.name)
        if model is not None and _agreed(model, card, lambda _sentence: None) != card:
            raise PublishError(f"{card.name} in {repository} was published by someone else meanwhile: export again")
        number = 1 if model is None else max(model.numbers, default=0) + 1
        beside = {**{name: text.encode() for name, text in shared_files(card).items()}, **(shared if model is None else _warm_up(model))}
        complete = report.published_as(card.name, number, _sha256_of(files), _sha256_of(beside))
        contents = {**files, REPORT_FILE: report_text(complete).encode()}
        sample = sample_of(card, number, files.__getitem__)
        if sample is None and f"{GOLDEN_FOLDER}/{GOLDEN_INDEX}" in files:
            notify(f"no golden image of version {number} is small enough for a sample: clients cannot check it with --check")
        if model is None:
            config = config if sample is None else with_sample(config, number, sample)
            put_model(repository, card.name, {CONFIG_FILE: config_text(config).encode(), **beside}, contents)
        else:
            _publish_version(model, number, contents, sample)
            for notice in notices_of_kept(model.config, str(model.folder / CONFIG_FILE), number, config):
                notify(notice)
    return PublishedVersion(card.name, number, repository / card.name / str(number), complete)


def _warm_up(model: PublishedModel) -> dict[str, bytes]:
    """The image to warm up with that the model was first published with, if there is one."""
    file = model.folder / WARM_UP_FOLDER / WARM_UP_FILE
    return {f"{WARM_UP_FOLDER}/{WARM_UP_FILE}": read_bytes(file, MAX_TEXT_BYTES)} if file.is_file() else {}


def _sha256_of(files: Mapping[str, bytes]) -> dict[str, str]:
    return {name: hashlib.sha256(content).hexdigest() for name, content in sorted(files.items())}


def put_model(repository: Path, name: str, shared: Mapping[str, bytes], contents: Mapping[str, bytes]) -> None:
    """Let the folder of a new model appear in `repository`: the files `shared` and, in version 1, `contents` (name → content).

    Only for who holds the repository's lock (`locked`). Raises OSError.
    """
    with staging(_beside(repository)) as stage:
        model = stage / name
        model.mkdir()
        for file, content in shared.items():
            (model / file).parent.mkdir(exist_ok=True)
            write_new(model / file, content, mode=0o644)
            sync_folder((model / file).parent)
        _write_version(model / "1", contents)
        sync_folder(model)
        os.rename(model, repository / name)
        sync_folder(repository)


def _publish_version(model: PublishedModel, number: int, contents: Mapping[str, bytes], sample: str | None) -> None:
    file = model.folder / CONFIG_FILE
    before = read_text(file, MAX_TEXT_BYTES)
    after = before if sample is None else text_with_sample(before, model, number, sample)
    with staging(model.folder / STAGING_FOLDER) as stage:
        for name, text in shared_files(model.card).items():
            if not (model.folder / name).exists():
                write_new(stage / name, text.encode(), mode=0o644)
                os.rename(stage / name, model.folder / name)
        _write_version(stage / str(number), contents)
        for name, text in ((NEW_CONFIG_FILE, after), (CONFIG_FILE, before)):
            write_new(stage / name, text.encode(), mode=0o644)
        # The sample first: of a version that is not there yet it says nothing, and a version must not be served without its own.
        os.replace(stage / NEW_CONFIG_FILE, file)
        try:
            # rename(2) replaces an empty folder at most, so even a version that someone made by hand meanwhile is safe.
            os.rename(stage / str(number), model.folder / str(number))
        except BaseException:
            os.replace(stage / CONFIG_FILE, file)
            raise
        sync_folder(model.folder)


def _write_version(folder: Path, contents: Mapping[str, bytes]) -> None:
    folders = {folder, *((folder / name).parent for name in contents)}
    for path in sorted(folders):
        path.mkdir()
    for name, content in contents.items():
        write_new(folder / name, content, mode=0o444)
    for path in sorted(folders, reverse=True):
        sync_folder(path)


@contextmanager
def locked(repository: Path, notify: Notify) -> Iterator[None]:
    """Hold the lock of the repository, cleared of leftovers. The kernel takes it back from whoever dies.

    An OSError becomes MachineError (no room, not writable) or PublishError.
    """
    import fcntl  # publishing is for Linux and macOS; everything else here works on Windows too

    try:
        if not repository.is_dir():
            repository.mkdir(parents=True)
            sync_folder(repository.parent)
        with open(os.open(repository / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666), "rb+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                notify(f"another export is publishing in {repository}: waiting until it is done")
                fcntl.flock(lock, fcntl.LOCK_EX)
            _clear(repository)
            yield
    except OSError as error:
        if error.errno == errno.EXDEV:
            raise PublishError(
                f"{repository} is a mount point of its own, so that a new model cannot appear in it all at once: name a folder inside it, "
                f"such as {repository / 'models'}. Nothing was published"
            ) from None
        kind = MachineError if is_fault_of_machine(error) else PublishError
        raise kind(f"{error.filename or repository}: {reason_of(error)}. Nothing was published in {repository}") from None


@contextmanager
def staging(folder: Path) -> Iterator[Path]:
    """An empty folder for the time of the block."""
    folder.mkdir()
    try:
        yield folder
    finally:
        # What is left can do no harm, and the error under way must be told.
        with suppress(OSError):
            shutil.rmtree(folder)


def _beside(repository: Path) -> Path:
    repository = repository.resolve()
    return repository.with_name(f".{repository.name}{STAGING_FOLDER}")


def _clear(repository: Path) -> None:
    """Remove what killed exports left. Only under the lock, which they no longer hold."""
    for leftover in (_beside(repository), *repository.glob(f"*/{STAGING_FOLDER}")):
        if leftover.exists():
            shutil.rmtree(leftover)
    (repository / PROBE_FILE).unlink(missing_ok=True)


def _probe(repository: Path) -> None:
    """Find out before the work whether something beside the repository can be renamed into it. Raises OSError."""
    with staging(_beside(repository)) as stage:
        (stage / PROBE_FILE).touch()
        os.rename(stage / PROBE_FILE, repository / PROBE_FILE)
        (repository / PROBE_FILE).unlink()


def _agreed(model: PublishedModel, card: ModelCard, notify: Notify) -> ModelCard:
    published, wanted = card_fields(model.card), card_fields(card)
    differing = [field for field in wanted if wanted[field] != published[field] and field != "description"]
    if differing:
        field = differing[0]
        more = f" (and {', '.join(differing[1:])} too)" if differing[1:] else ""
        raise PublishError(
            f"{card.name} is published in {model.folder.parent} with another {field}: {_abbreviated(published[field])} there, "
            f"{_abbreviated(wanted[field])} here{more}. All versions of a model share one card: "
            "give the model another name, or publish in another repository"
        )
    if model.card != card:
        notify(f"the description stays the one that {card.name} was first published with: {_abbreviated(model.card.description)}")
    return model.card


def _abbreviated(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:79] + "…"
