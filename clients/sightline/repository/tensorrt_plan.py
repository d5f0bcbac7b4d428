"""TensorRT plans beside the versions they were built from: what a plan's record says, and where that differs from another machine.

A plan is a cache: built on one machine from a published ONNX file, good for machines like it, thrown away without a loss. It is also
code, so nothing loads one whose file is not the recorded one.
"""

import hashlib
import json
import re
from dataclasses import asdict, dataclass, fields
from itertools import islice
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from sightline.errors import ContractError, RepositoryError, UsageError
from sightline.host.files import read_text, reason_of
from sightline.repository.hashes import FileHashes
from sightline.repository.layout import LAYERS_FILE, MAX_PLANS, MAX_RECORD_BYTES, PLAN_FILE, PLANS_FOLDER, RECORD_FILE
from sightline.repository.report import GateReport, Sha256, parse_document

SCHEMA: Final = 1
"""Of `plan.json`."""

Hardware = Literal["none", "ampere-plus", "same-compute-capability"]
"""TensorRT's HardwareCompatibilityLevel, as options spell it: which other GPUs than the one it was built on may load a plan."""

VersionText = Annotated[str, Field(pattern=r"^\d{1,6}(\.\d{1,6}){1,3}$")]
ShortText = Annotated[str, Field(min_length=1, max_length=200)]


@dataclass(frozen=True)
class Fingerprint:
    """What decides whether a plan may be loaded, and whether it is still the fastest: a machine, and the file it was built from."""

    tensorrt: VersionText
    """All four numbers of the library, `11.4.0.106`; the month of a container says nothing."""
    cuda: VersionText
    """What the driver offers."""
    driver: VersionText
    gpu: ShortText
    """Its name, as the driver gives it."""
    compute_capability: Annotated[str, Field(pattern=r"^\d{1,3}\.\d{1,2}$")]
    system: ShortText
    """Operating system and processor: `Linux x86_64`."""
    onnx_sha256: Sha256


DIFFERENCES: Final = {
    "onnx_sha256": "it was built from another ONNX file (sha256 {built:.12}…, the version's is {here:.12}…)",
    "tensorrt": "it was built with TensorRT {built}, and here TensorRT is {here}",
    "compute_capability": "it was built for compute capability {built}, and this GPU has {here}",
    "gpu": "it was built on a GPU called {built}, and this one is called {here}",
    "system": "it was built on {built}, and this is {here}",
    "cuda": "it was built with CUDA {built}, and this driver offers CUDA {here}",
    "driver": "it was built with driver {built}, and here the driver is {here}",
}
"""Field → the phrase that names it, those that matter most first."""


@dataclass(frozen=True)
class Profile:
    """Sizes of batch that a plan takes, and the one that it is fastest for."""

    minimum: Annotated[int, Field(ge=1)]
    optimum: Annotated[int, Field(ge=1)]
    maximum: Annotated[int, Field(ge=1)]

    @property
    def batches(self) -> tuple[int, ...]:
        """The different sizes, smallest first: what a server is warmed up with."""
        return tuple(sorted({self.minimum, self.optimum, self.maximum}))


class PlanRecord(BaseModel):
    """`plan.json`: what a plan was built from, on what, how, and what was found of it."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    schema_: Annotated[Literal[1], Field(alias="schema")]
    model: ShortText
    version: Annotated[int, Field(ge=1)]
    created: ShortText
    """ISO 8601, UTC."""
    precision: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$")]
    """The name of one of export's precisions, which the ONNX file is in."""
    fingerprint: Fingerprint
    profile: Profile
    hardware_compatibility: Hardware
    version_compatible: bool
    tf32: Literal[False]
    """Never: ten bits of a float32's 23 are no FP32."""
    build_seconds: Annotated[float, Field(ge=0)]
    realised: dict[ShortText, float]
    """Share of the computing layers by type, as the engine inspector tells them."""
    gate: GateReport
    files: dict[ShortText, Sha256]


@dataclass(frozen=True)
class Plan:
    """A plan that lies in a repository. Its file has not been looked at yet: `check_plan` does."""

    folder: Path
    record: PlanRecord

    @property
    def place(self) -> str:
        """Where it lies inside the model's folder, for sentences."""
        return "/".join(self.folder.parts[-3:])


def profile_for(max_batch_size: int, optimum: int | None = None) -> Profile:
    """1 to the card's largest batch, fastest at `optimum`: half of the largest, if nobody says. Raises UsageError if that lies outside."""
    if optimum is None:
        optimum = max(1, max_batch_size // 2)
    if not 1 <= optimum <= max_batch_size:
        raise UsageError(f"a batch of {optimum} to be fastest at lies outside 1 to {max_batch_size}, which is what the model's card allows")
    return Profile(1, optimum, max_batch_size)


def differences(record: PlanRecord, here: Fingerprint) -> list[str]:
    """Where the plan's fingerprint is not `here`, a phrase a field; what its compatibility was built to bridge is no difference."""
    built, present = asdict(record.fingerprint), asdict(here)
    return [
        phrase.format(built=built[field], here=present[field])
        for field, phrase in DIFFERENCES.items()
        if built[field] != present[field] and not _bridged(record, field, here)
    ]


def identity(fingerprint: Fingerprint, profile: Profile, hardware: Hardware, *, version_compatible: bool) -> str:
    """The name of a plan's folder, `sm90-3f9c2a61d0b4`: the same for the same file, machine and settings."""
    content = [asdict(fingerprint), asdict(profile), hardware, version_compatible]
    digest = hashlib.sha256(json.dumps(content, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
    return f"{shader_model(fingerprint.compute_capability)}-{digest[:12]}"


def shader_model(compute_capability: str) -> str:
    """`sm90` for compute capability 9.0."""
    return f"sm{compute_capability.replace('.', '')}"


def plan_folders(model: Path, version: int) -> list[Path]:
    """The folders of the plans of a version in a model's folder, by name. Raises OSError."""
    folder = model / PLANS_FOLDER / str(version)
    if not folder.is_dir():
        return []
    plans = (entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    return sorted(islice(plans, MAX_PLANS))


def read_plan(folder: Path) -> Plan:
    """Read a plan's record; its file is not opened. Raises ContractError if there is none that can be believed."""
    file = folder / RECORD_FILE
    remedy = f"Delete {folder.name}, and build the plan again"
    try:
        record = parse_document(PlanRecord, read_text(file, MAX_RECORD_BYTES), "no record of a plan")
    except OSError as error:
        raise ContractError(f"{file} cannot be read: {reason_of(error)}. {remedy}") from None
    except RepositoryError as error:
        raise ContractError(f"{file} is {error}. {remedy}") from None
    if (record.model, str(record.version)) != (folder.parents[2].name, folder.parent.name):
        raise ContractError(f"{file} belongs to {record.model} version {record.version}. {remedy}")
    if set(record.files) != {PLAN_FILE, LAYERS_FILE}:
        raise ContractError(f"{file} does not list {PLAN_FILE} and {LAYERS_FILE}. {remedy}")
    return Plan(folder, record)


def check_plan(plan: Plan, hashes: FileHashes | None = None) -> None:
    """Raise ContractError unless the plan's files are those that were built: a plan is code, and no other one may be loaded."""
    known = hashes or FileHashes()
    root = plan.folder.resolve()
    for name, built in sorted(plan.record.files.items()):
        file = plan.folder / name
        try:
            if not file.resolve().is_relative_to(root):
                raise ContractError(f"{plan.place}/{name} is a link that leads elsewhere")
            actual = known.of(file)
        except OSError as error:
            raise ContractError(f"{plan.place}/{name} cannot be read: {reason_of(error)}") from None
        if actual != built:
            raise ContractError(f"{plan.place}/{name} was changed after it was built (sha256 {actual:.12}…, built {built:.12}…)")


def _bridged(record: PlanRecord, field: str, here: Fingerprint) -> bool:
    built = record.fingerprint
    if field == "gpu":
        return record.hardware_compatibility != "none"
    if field == "compute_capability":
        # NVIDIA: "ampere+" runs on Ampere and what came after it, whichever of them it was built on.
        return record.hardware_compatibility == "ampere-plus" and _numbers(here.compute_capability) >= (8, 0)
    if field == "tensorrt":
        # A lean runtime of the builder's own version comes with the plan; NVIDIA promises newer ones of the same major version.
        mine, theirs = _numbers(built.tensorrt), _numbers(here.tensorrt)
        return record.version_compatible and mine[0] == theirs[0] and theirs > mine
    return False


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version))


if set(DIFFERENCES) != {field.name for field in fields(Fingerprint)}:
    raise AssertionError("every field of a fingerprint has its phrase")
