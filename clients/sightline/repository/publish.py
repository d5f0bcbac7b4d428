"""Publishes a version of a model all at once: before the last rename nothing is visible, after it everything is, and safely on disk.

A new version is staged inside its model's folder, where Triton ignores names that are no numbers. A model's first version brings
its folder along, and in the root of a repository Triton loads every folder, whatever it is called (one that it cannot load keeps the
server from starting): that one is staged beside the repository. Only the holder of the repository's lock stages, so whatever staging
it finds was left by an export that was killed.
"""

import errno
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from sightline.card import ModelCard
from sightline.errors import PublishError
from sightline.repository.config import other_settings
from sightline.repository.read import CONFIG_FILE, REPORT_FILE, SCHEMA, Model, fields_of, read_model, shared_files, versions

LOCK: Final = ".sightline.lock"
"""Triton loads folders; a file in a repository's root is nothing to it."""
PROBE: Final = ".sightline.probe"
STAGING: Final = ".sightline.staging"

Notify = Callable[[str], None]


@dataclass(frozen=True)
class Published:
    """A version that is in the repository."""

    model: str
    version: int
    folder: Path
    report: Mapping[str, Any]


def agreed_card(repository: Path, card: ModelCard, notify: Notify) -> ModelCard:
    """The card under which `card`'s model can be published in `repository`, which is made if it is missing.

    It is `card` itself, but for the description: the one that the model was first published with stays, since the card lies in
    every version and in the model's folder, and all copies are the same. Raises PublishError if another field differs, if the
    repository is damaged, or if nothing can be published there.
    """
    with locked(repository, notify):
        model = read_model(repository / card.name)
        if model is None:
            _probe(repository)
            return card
        return _agreed(model, card, notify)


def publish(
    repository: Path,
    card: ModelCard,
    config: str,
    files: Mapping[str, bytes],
    report: Mapping[str, Any],
    notify: Notify = lambda _sentence: None,
    *,
    beside: Mapping[str, bytes] = MappingProxyType({}),
) -> Published:
    """Publish `files` (name inside the version's folder → content) as the next version of `card`'s model.

    `report` is completed with schema, model, version, and the sha256 of every file, and becomes `report.json`. `config` is the text of
    `config.pbtxt` for a new model, and `beside` are files that it names; an existing one is kept with its own. Raises PublishError, and
    nothing has changed.
    """
    with locked(repository, notify):
        model = read_model(repository / card.name)
        if model is not None and _agreed(model, card, lambda _sentence: None) != card:
            raise PublishError(f"{card.name} in {repository} was published by someone else meanwhile: export again")
        folder = repository / card.name
        number = max(versions(folder), default=0) + 1 if model is not None else 1
        complete = {
            "schema": SCHEMA,
            "model": card.name,
            "version": number,
            **report,
            "files": {name: hashlib.sha256(content).hexdigest() for name, content in sorted(files.items())},
        }
        contents = {**files, REPORT_FILE: (json.dumps(complete, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()}
        if model is None:
            shared = {**{name: text.encode() for name, text in {CONFIG_FILE: config, **shared_files(card)}.items()}, **beside}
            put_model(repository, card.name, shared, contents)
        else:
            _publish_version(model, number, contents)
            _tell(model, number, config, notify)
    return Published(card.name, number, folder / str(number), complete)


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


def _publish_version(model: Model, number: int, contents: Mapping[str, bytes]) -> None:
    with staging(model.folder / STAGING) as stage:
        for name, text in shared_files(model.card).items():
            if not (model.folder / name).exists():
                write_new(stage / name, text.encode(), mode=0o644)
                os.rename(stage / name, model.folder / name)
        _write_version(stage / str(number), contents)
        # rename(2) replaces an empty folder at most, so even a version that someone made by hand meanwhile is safe.
        os.rename(stage / str(number), model.folder / str(number))
        sync_folder(model.folder)


def _write_version(folder: Path, contents: Mapping[str, bytes]) -> None:
    folders = {folder, *((folder / name).parent for name in contents)}
    for each in sorted(folders):
        each.mkdir()
    for name, content in contents.items():
        write_new(folder / name, content, mode=0o444)
    for each in sorted(folders, reverse=True):
        sync_folder(each)


def write_new(file: Path, content: bytes, mode: int) -> None:
    """Write a file that must not be there yet, down to the disk. Raises OSError."""
    with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode), "wb") as opened:
        opened.write(content)
        opened.flush()
        os.fsync(opened.fileno())


def sync_folder(folder: Path) -> None:
    """Make what was created or renamed in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def locked(repository: Path, notify: Notify) -> Iterator[None]:
    """Hold the lock of the repository, cleared of leftovers. The kernel takes it back from whoever dies. OSError becomes PublishError."""
    try:
        if not repository.is_dir():
            repository.mkdir(parents=True)
            sync_folder(repository.parent)
        with open(os.open(repository / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666), "rb+") as lock:
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
        where = error.filename or repository
        raise PublishError(f"{where}: {error.strerror or error}. Nothing was published in {repository}") from None


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
    return repository.with_name(f".{repository.name}{STAGING}")


def _clear(repository: Path) -> None:
    """Remove what killed exports left. Only under the lock, which they no longer hold."""
    for left in (_beside(repository), *repository.glob(f"*/{STAGING}")):
        if left.exists():
            shutil.rmtree(left)
    (repository / PROBE).unlink(missing_ok=True)


def _probe(repository: Path) -> None:
    """Find out before the work whether something beside the repository can be renamed into it. Raises OSError."""
    with staging(_beside(repository)) as stage:
        (stage / PROBE).touch()
        os.rename(stage / PROBE, repository / PROBE)
        (repository / PROBE).unlink()


def _agreed(model: Model, card: ModelCard, notify: Notify) -> ModelCard:
    published, wanted = fields_of(model.card), fields_of(card)
    differing = [field for field in wanted if wanted[field] != published[field] and field != "description"]
    if differing:
        field = differing[0]
        more = f" (and {', '.join(differing[1:])} too)" if differing[1:] else ""
        raise PublishError(
            f"{card.name} is published in {model.folder.parent} with another {field}: {_shown(published[field])} there, "
            f"{_shown(wanted[field])} here{more}. All versions of a model share one card: "
            "give the model another name, or publish in another repository"
        )
    if model.card != card:
        notify(f"the description stays the one that {card.name} was first published with: {_shown(model.card.description)}")
    return model.card


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:79] + "…"


def _tell(model: Model, number: int, config: str, notify: Notify) -> None:
    """What the owner of an existing config.pbtxt should know after a version was added."""
    if kept := [field for field in other_settings(model.config.message, config) if field != "version_policy"]:
        notify(f"{model.folder / CONFIG_FILE} was kept as it is; a new one would differ in {', '.join(kept)}")
    if model.config.policy == "specific" and number not in model.config.served:
        pinned = ", ".join(map(str, model.config.served))
        notify(f"version {number} is published but not served: version_policy in {model.folder / CONFIG_FILE} says {pinned}")
