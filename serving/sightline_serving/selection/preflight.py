"""What a model repository holds, looked at before Triton starts: a clear sentence now is better than Triton's log later.

Which versions Triton will serve follows its own rules (its user guide, "Model Repository" and "Model Configuration"): version
folders are whole numbers without a leading zero, and `version_policy` chooses among them.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from sightline.card import PICTURES_OF, unseal
from sightline.errors import ContractError, ServerStartError
from sightline.host.cpu import integer_instructions
from sightline_serving.selection.int8_check import unfit

CONFIG: Final = "config.pbtxt"
VERSION: Final = re.compile(r"[1-9][0-9]{0,17}")
MAX_CONFIG_BYTES: Final = 64 * 1024 * 1024
"""A card of 16 MiB, twice escaped, still fits."""


@dataclass(frozen=True)
class ServedModel:
    """A model and the versions of it that Triton serves, oldest first."""

    name: str
    versions: tuple[int, ...]


@dataclass(frozen=True)
class Contents:
    """The models to serve, and the folders that hold none and are left out."""

    models: tuple[ServedModel, ...]
    ignored: tuple[str, ...]
    instead: Mapping[str, str] = field(default_factory=dict)
    """Models of which another version is served than their `config.pbtxt` asks for → why, as a sentence."""


def look_into(repository: Path, only: Sequence[str] = (), *, verify_hashes: bool = True) -> Contents:
    """Find what `repository` can serve (`only`: nothing but the models of these names).

    Raises ServerStartError if it is missing or empty, or if a model in it has no version or no readable config; ContractError if
    a file of a version to be served is not the one that was published (`report.json` holds every file's sha256).
    """
    try:
        return _contents(repository, only, verify_hashes=verify_hashes)
    except OSError as error:
        raise ServerStartError(f"the model repository cannot be read: {error.strerror}: {error.filename}") from None


def _contents(repository: Path, only: Sequence[str], *, verify_hashes: bool) -> Contents:
    if not repository.is_dir():
        raise ServerStartError(
            f"there is no model repository at {repository}: publish a model there with `sightline export`, or name another"
        )
    if (repository / CONFIG).is_file():
        raise ServerStartError(f"{repository} is the folder of one model: name the model repository around it, {repository.parent}")
    folders = sorted(each for each in repository.iterdir() if each.is_dir() and not each.name.startswith("."))
    published = [each for each in folders if (each / CONFIG).is_file() or _versions(each)]
    names = [each.name for each in published]
    unknown = sorted(set(only) - set(names))
    if unknown:
        raise ServerStartError(f"the model repository {repository} has no model {unknown[0]}: it has {', '.join(names) or 'none'}")
    chosen = [each for each in published if not only or each.name in only or _asked_for(each, only)]
    if not chosen:
        raise ServerStartError(f"the model repository {repository} holds no model: publish one there with `sightline export`")
    models, instead = [], {}
    here = integer_instructions()
    for each in chosen:
        model, file = _model(each)
        wanted, model = model, _fit(each, model, here)
        if model != wanted:
            reason = unfit(each / str(wanted.versions[-1]), here) or ""
            instead[model.name] = f"{model.name} version {model.versions[-1]} is served instead of version {wanted.versions[-1]}: {reason}"
        models.append(model)
        for version in model.versions if verify_hashes else ():
            _check_hashes(each / str(version), file, f"{model.name} version {version}")
    return Contents(tuple(models), tuple(each.name for each in folders if each not in published), instead)


def _versions(model: Path) -> list[int]:
    return sorted(int(each.name) for each in model.iterdir() if VERSION.fullmatch(each.name) and each.is_dir())


def _asked_for(folder: Path, only: Sequence[str]) -> bool:
    """Whether the model takes encoded images for one of those named, and so comes with it."""
    parameters = read_config(folder / CONFIG).parameters if (folder / CONFIG).is_file() else {}
    if PICTURES_OF not in parameters:
        return False
    return unseal(parameters[PICTURES_OF].string_value, f"config.pbtxt of model {folder.name}").name in only


def _model(folder: Path) -> tuple[ServedModel, str | None]:
    """The model in `folder`, and the name of the file that its versions hold; None for an ensemble, which holds none."""
    file = folder / "config.pbtxt"
    if not file.is_file():
        raise ServerStartError(f"model {folder.name} has no config.pbtxt in {folder}: export it again, or serve others with --model")
    config = read_config(file)
    there = _versions(folder)
    if not there:
        raise ServerStartError(f"model {folder.name} has no version (1/, 2/ …) in {folder}: export it, or serve others with --model")
    if config.name not in ("", folder.name):
        raise ServerStartError(f"{file} names the model {config.name}, its folder {folder.name}: the two must be the same")
    policy = config.version_policy
    match policy.WhichOneof("policy_choice"):
        case "all":
            served = there
        case "specific":
            served = sorted(set(policy.specific.versions) & set(there))
        case _:
            served = there[-max(1, policy.latest.num_versions) :]
    if not served:
        wanted = ", ".join(map(str, policy.specific.versions))
        raise ServerStartError(f"the version_policy in {file} asks for version {wanted}, but there is only {', '.join(map(str, there))}")
    file_name = None if config.platform == "ensemble" else config.default_model_filename or "model.onnx"
    return ServedModel(folder.name, tuple(served)), file_name


def _fit(folder: Path, model: ServedModel, here: tuple[str, ...]) -> ServedModel:
    """The model with those of its versions that this machine can compute; if there is none, with the newest other one that it can.

    Raises ContractError if there is no such version at all.
    """
    fit = tuple(number for number in model.versions if unfit(folder / str(number), here) is None)
    if not fit:
        fit = tuple(number for number in _versions(folder) if unfit(folder / str(number), here) is None)[-1:]
    if not fit:
        newest = model.versions[-1]
        raise ContractError(
            f"{model.name} version {newest} is not served: {unfit(folder / str(newest), here)}, and {folder} holds no version to fall "
            "back on. Export it in FP32 too, or anew on this machine"
        )
    return ServedModel(model.name, fit)


def pinned(config: Path, versions: Sequence[int]) -> str:
    """The text of `config` with a version policy that names `versions`."""
    message = read_config(config)
    message.version_policy.specific.versions[:] = versions
    text: str = text_format.MessageToString(message, as_utf8=False)
    return text


def read_config(file: Path) -> Any:
    """The ModelConfig message in a `config.pbtxt`. Raises ServerStartError with the place in the file."""
    if file.stat().st_size > MAX_CONFIG_BYTES:
        raise ServerStartError(f"{file} is larger than {MAX_CONFIG_BYTES:,} bytes: that is no model configuration")
    try:
        # A newer Triton's fields are its own business.
        return text_format.Parse(file.read_text(encoding="utf-8"), model_config_pb2.ModelConfig(), allow_unknown_field=True)
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise ServerStartError(f"{file} is no model configuration: {error}. Export the model again") from None


def _check_hashes(version: Path, model_file: str | None, called: str) -> None:
    """A version without a report was not published by `sightline export`, and nothing is known about its files."""
    report = version / "report.json"
    if not report.is_file():
        return
    if report.stat().st_size > MAX_CONFIG_BYTES:
        raise ContractError(f"{report} is larger than {MAX_CONFIG_BYTES:,} bytes, so {called} is not served: export the model again")
    try:
        content = json.loads(report.read_text(encoding="utf-8"))
        listed = content.get("files") or {}
        pairs = {str(name): str(digest) for name, digest in listed.items()}
    except (ValueError, AttributeError, RecursionError, OSError) as error:
        raise ContractError(f"{report} cannot be read ({error}), so {called} is not served: export the model again") from None
    if pairs and model_file is not None and model_file not in pairs:
        raise ContractError(f"{report} lists files, but not {model_file}, so {called} is not served: export the model again")
    for name, expected in sorted(pairs.items()):
        file = version / name
        if not file.resolve().is_relative_to(version.resolve()):
            raise ContractError(f"{report} lists {name}, which lies elsewhere, so {called} is not served: export the model again")
        if not file.is_file():
            raise ContractError(f"{file} was published and is missing, so {called} is not served: restore it or export the model again")
        with file.open("rb") as opened:
            found = hashlib.file_digest(opened, "sha256").hexdigest()
        if found != expected:
            raise ContractError(
                f"{file} was changed after it was published (sha256 {found[:12]}…, published {expected[:12]}…), so {called} is not served: "
                "restore it or export the model again"
            )
