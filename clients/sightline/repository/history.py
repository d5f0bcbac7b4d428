"""The versions of a published model: what each is, which of them Triton serves, and the way back to an earlier one."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sightline.errors import RepositoryError
from sightline.repository.edit import own_config, published_model, replace_config
from sightline.repository.publish import locked
from sightline.repository.read import Model, check_files, read_version, versions
from sightline_export.gate.checks import ACCURACY


@dataclass(frozen=True)
class Entry:
    """One version, as its report describes it."""

    number: int
    created: str
    """ISO 8601, UTC."""
    precision: str
    accuracy: float | None
    """Of this file in ONNX Runtime on the images of the gate, 0..1; None if nobody knows what those show."""
    checks: int
    images: int
    """How many checks the gate made, on how many images."""
    bytes: int
    served: bool
    damaged: str
    """Why it cannot be trusted; empty if nothing is wrong."""


def history(repository: Path, name: str) -> list[Entry]:
    """All versions of the model `name`, oldest first; the files of each are hashed. Raises RepositoryError if there is no such model."""
    model = published_model(repository, name)
    there = versions(model.folder)
    served = served_of(model, there)
    return [_entry(model.folder / str(number), served=number in served) for number in there]


def served_of(model: Model, there: list[int]) -> list[int]:
    """The versions that Triton serves of those that are there, oldest first, by its own rules (user guide, "Version Policy")."""
    match model.config.policy:
        case "all":
            return there
        case "specific":
            return [number for number in there if number in model.config.served]
        case "latest":
            return there[-max(1, model.config.message.version_policy.latest.num_versions) :]


def rollback(repository: Path, name: str, to: int | None = None) -> int:
    """Make an earlier version of `name` the one that is served: `to`, or the newest before the one that is served now.

    Nothing is deleted. `config.pbtxt` names the version afterwards, so what is published later is not served until `serve_newest`
    or another `rollback`. Gives the version. Raises RepositoryError if there is none, or if its files are not the published ones.
    """
    with locked(repository, lambda _sentence: None):
        model = published_model(repository, name)
        there = versions(model.folder)
        now, listed = served_of(model, there), ", ".join(map(str, there)) or "none"
        if to is None:
            earlier = [number for number in there if number < max(now, default=0)]
            if not earlier:
                raise RepositoryError(f"{name} in {repository} has no version before {max(now, default='any')}: there is {listed}")
            to = earlier[-1]
        if to not in there:
            raise RepositoryError(f"{name} in {repository} has no version {to}: there is {listed}")
        check_files(read_version(model.folder / str(to)))
        config = own_config(model)
        config.version_policy.specific.versions[:] = [to]
        replace_config(model.folder, config)
    return to


def serve_newest(repository: Path, name: str) -> int:
    """Take a rollback back: from now on the newest version is served, whichever that is. Gives it. Raises RepositoryError."""
    with locked(repository, lambda _sentence: None):
        model = published_model(repository, name)
        there = versions(model.folder)
        if not there:
            raise RepositoryError(f"{name} in {repository} has no version: export it")
        check_files(read_version(model.folder / str(there[-1])))
        config = own_config(model)
        config.version_policy.latest.num_versions = 1
        replace_config(model.folder, config)
    return there[-1]


def _entry(folder: Path, *, served: bool) -> Entry:
    report: Mapping[str, Any] = {}
    damaged = ""
    try:
        version = read_version(folder)
        report = version.report
        check_files(version)
    except RepositoryError as error:
        damaged = str(error)
    gate = report.get("gate")
    gate = gate if isinstance(gate, dict) else {}
    checks = [check for check in gate.get("checks") or [] if isinstance(check, dict)]
    accuracy = next((check.get("measured") for check in checks if check.get("name") == ACCURACY), None)
    return Entry(
        number=int(folder.name),
        created=str(report.get("created", "")),
        precision=str(report.get("precision", "")),
        accuracy=float(accuracy) if isinstance(accuracy, int | float) else None,
        checks=len(checks),
        images=int(gate.get("pictures") or 0),
        bytes=int(report.get("model_bytes") or 0),
        served=served,
        damaged=damaged,
    )
