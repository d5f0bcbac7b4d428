"""The versions of a published model: what each is, which of them Triton serves, and the way back to an earlier one."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from sightline.errors import PublishError
from sightline_export.publish import locked, sync_folder, write_new
from sightline_export.repository import CONFIG_FILE, Model, check_files, read_model, read_text, read_version, versions
from sightline_export.verdict import ACCURACY

NEW_CONFIG: Final = ".sightline.config.pbtxt"
"""The new configuration until it is renamed; Triton reads `config.pbtxt` alone."""


@dataclass(frozen=True)
class Entry:
    """One version, as its report describes it."""

    number: int
    created: str
    """ISO 8601, UTC."""
    precision: str
    accuracy: float | None
    """Of this file in ONNX Runtime on the pictures of the gate, 0..1; None if nobody knows what those show."""
    checks: int
    pictures: int
    """How many checks the gate made, on how many pictures."""
    bytes: int
    served: bool
    damaged: str
    """Why it cannot be trusted; empty if nothing is wrong."""


def history(repository: Path, name: str) -> list[Entry]:
    """All versions of the model `name`, oldest first; the files of each are hashed. Raises PublishError if there is no such model."""
    model = _model(repository, name)
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
    or another `rollback`. Gives the version. Raises PublishError if there is none, or if its files are not the published ones.
    """
    with locked(repository, lambda _sentence: None):
        model = _model(repository, name)
        there = versions(model.folder)
        now, listed = served_of(model, there), ", ".join(map(str, there)) or "none"
        if to is None:
            earlier = [number for number in there if number < max(now, default=0)]
            if not earlier:
                raise PublishError(f"{name} in {repository} has no version before {max(now, default='any')}: there is {listed}")
            to = earlier[-1]
        if to not in there:
            raise PublishError(f"{name} in {repository} has no version {to}: there is {listed}")
        check_files(read_version(model.folder / str(to)))
        config = _own_config(model)
        config.version_policy.specific.versions[:] = [to]
        _replace(model.folder, config)
    return to


def serve_newest(repository: Path, name: str) -> int:
    """Take a rollback back: from now on the newest version is served, whichever that is. Gives it. Raises PublishError."""
    with locked(repository, lambda _sentence: None):
        model = _model(repository, name)
        there = versions(model.folder)
        if not there:
            raise PublishError(f"{name} in {repository} has no version: export it")
        check_files(read_version(model.folder / str(there[-1])))
        config = _own_config(model)
        config.version_policy.latest.num_versions = 1
        _replace(model.folder, config)
    return there[-1]


def _model(repository: Path, name: str) -> Model:
    # The name comes from a command line, and must not lead out of the repository.
    model = read_model(repository / name) if repository.is_dir() and Path(name).name == name and name not in ("", ".", "..") else None
    if model is None:
        there = sorted(each.name for each in repository.iterdir() if (each / CONFIG_FILE).is_file()) if repository.is_dir() else []
        raise PublishError(f"there is no model {name} in {repository}: it has {', '.join(there) or 'none'}")
    return model


def _entry(folder: Path, *, served: bool) -> Entry:
    report: Mapping[str, Any] = {}
    damaged = ""
    try:
        version = read_version(folder)
        report = version.report
        check_files(version)
    except PublishError as error:
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
        pictures=int(gate.get("pictures") or 0),
        bytes=int(report.get("model_bytes") or 0),
        served=served,
        damaged=damaged,
    )


def _own_config(model: Model) -> Any:
    """The configuration to change. Raises PublishError if it holds what would be lost on the way."""
    file = model.folder / CONFIG_FILE
    try:
        return text_format.Parse(read_text(file), model_config_pb2.ModelConfig())
    except text_format.ParseError as error:
        raise PublishError(
            f"{file} holds settings of a newer Triton than this program knows, which would be lost: {error}. "
            "Change its version_policy by hand"
        ) from None


def _replace(folder: Path, config: Any) -> None:
    """Replace the configuration in one rename, so that whoever reads it sees the old or the new one whole. Raises OSError."""
    new = folder / NEW_CONFIG
    new.unlink(missing_ok=True)
    text: str = text_format.MessageToString(config, as_utf8=False)
    write_new(new, text.encode(), mode=0o644)
    os.rename(new, folder / CONFIG_FILE)
    sync_folder(folder)
