"""Decides which models are answered by their TensorRT plans here, and, for the others, which field of the fingerprint differs.

The repository never changes for it. Where plans fit, Triton reads another `config.pbtxt` and the plans instead of the ONNX files;
where one does not, it reads the model as it was published, and ONNX Runtime answers.
"""

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from sightline.errors import ContractError, MachineError, SightlineError
from sightline.host.files import reason_of
from sightline.host.gpu import Gpu, Machine, machine, needed_library, tensorrt_version
from sightline.repository.config import InstanceGroup, ModelConfig, VersionPolicy, WarmUp, WarmUpTensor
from sightline.repository.hashes import FileHashes
from sightline.repository.layout import ONNX_FILE, PLAN_FILE
from sightline.repository.read import ModelFolder
from sightline.repository.tensorrt_plan import (
    Fingerprint,
    Plan,
    Profile,
    check_plan,
    differences,
    plan_folders,
    read_plan,
    shader_model,
)
from sightline_serving.process.installation import Installation
from sightline_serving.selection.preflight import Selection

BACKEND: Final = "tensorrt"
PLATFORM: Final = "tensorrt_plan"
LIBRARY: Final = "libtriton_tensorrt.so"
TENSORRT: Final = "libnvinfer"
ALLOW_CODE: Final = "tensorrt,version-compatible=true"
"""`--backend-config` without which Triton loads no plan that brings code along (tensorrt_backend, README)."""


@dataclass(frozen=True)
class Replacement:
    """What Triton reads of a model instead of what lies in the repository."""

    config: ModelConfig
    files: Mapping[int, Mapping[str, Path]]
    """Version → name → file, for versions that hold nothing but these; other versions are as they are."""
    brings_code: bool = False
    """Whether a plan among the files is version compatible."""


@dataclass(frozen=True)
class TensorRtMachine:
    """A machine, and the TensorRT library that Triton would load a plan with."""

    machine: Machine
    tensorrt: str


def choose_plans(selection: Selection, triton: Installation, *, allow_code: bool) -> tuple[dict[str, Replacement], list[str]]:
    """Return, for each selected model with plans, the replacement by which they answer, or a sentence that says why ONNX Runtime does.

    `allow_code` admits version-compatible plans, which hold a TensorRT runtime that Triton would run. Raises nothing for a plan that
    is damaged or unreadable: the published ONNX file is there and answers.
    """
    replacements, notices, here = {}, [], None
    for model in selection.models:
        folder = selection.folders[model.name]
        try:
            if not any(plan_folders(folder.folder, number) for number in model.versions):
                continue
            here = here or machine_of_plans(triton, triton.backends / BACKEND / LIBRARY)
            replacements[model.name] = with_plans(folder, model.versions, here, selection.hashes, allow_code=allow_code)
        except (SightlineError, OSError) as error:
            versions = f"{model.name} version {', '.join(map(str, model.versions))}"
            notices.append(
                f"{versions} is answered by ONNX Runtime and not by a TensorRT plan: {error}. For a plan that fits, run "
                f"`sightline finalize {model.name}` on this machine"
            )
    return replacements, notices


def machine_of_plans(triton: Installation, library: Path) -> TensorRtMachine:
    """Return the machine as the `library` of a backend sees it. Raises MachineError if it has no TensorRT, no driver or no GPU."""
    name = needed_library(library, TENSORRT) if library.is_file() else None
    if name is None:
        raise MachineError(f"{triton.origin} has no TensorRT (no {library.parent.name}/{library.name} that needs it)")
    environment = triton.environment()
    return TensorRtMachine(machine(environment), tensorrt_version(name, environment))


def with_warm_ups(config: ModelConfig, profile: Profile) -> ModelConfig:
    """Return the configuration with a warm-up at each batch of the profile: Triton is ready only when they are answered.

    With the image that its own warm-up names, if it has one; else with zeros.
    """
    files = {tensor.name: tensor.file for tensor in config.warm_ups[0].inputs} if config.warm_ups else {}
    tensors = tuple(WarmUpTensor(tensor.name, tensor.data_type, tensor.dims, files.get(tensor.name, "")) for tensor in config.inputs)
    return replace(config, warm_ups=tuple(WarmUp(f"tensorrt-batch-{batch}", batch, tensors) for batch in profile.batches))


def plan_config(config: ModelConfig, versions: Sequence[int], names: Mapping[str, str], profile: Profile) -> ModelConfig:
    """Return the configuration, changed to serve the plans `names` (compute capability → file name)."""
    changed = replace(
        config,
        backend=BACKEND,
        platform=PLATFORM,
        policy=VersionPolicy("specific", versions=tuple(versions)),
        gpu_accelerators=(),
        instance_groups=tuple(replace(group, kind="KIND_GPU") for group in config.instance_groups),
        # One plan is simply the model's file. Of several each has its own name and the default is missing, so that no GPU gets another's.
        default_file=PLAN_FILE,
        plan_files=dict(names) if len(names) > 1 else config.plan_files,
    )
    return with_warm_ups(changed, profile)


def with_plans(folder: ModelFolder, versions: Sequence[int], here: TensorRtMachine, hashes: FileHashes, *, allow_code: bool) -> Replacement:
    """Return the replacement that lets plans of the model answer `here`. Raises ContractError that names what differs."""
    config = folder.config
    gpus = _gpus(config, here.machine)
    files: dict[int, dict[str, Path]] = {}
    chosen: list[Plan] = []
    names = {gpu.compute_capability: f"model.{shader_model(gpu.compute_capability)}.plan" for gpu in gpus}
    if len(names) == 1:
        names = dict.fromkeys(names, PLAN_FILE)
    for number in versions:
        sha256 = hashes.of(folder.version(number).folder / (config.default_file or ONNX_FILE))
        of_capability: dict[str, Plan] = {}
        for gpu in dict.fromkeys(gpus):
            wanted = Fingerprint(
                here.tensorrt, here.machine.cuda, here.machine.driver, gpu.name, gpu.compute_capability, here.machine.system, sha256
            )
            plan = _fitting(folder, number, wanted, allow_code=allow_code)
            # A plan is code: what was not built here by `finalize` is not handed to TensorRT.
            check_plan(plan, hashes)
            if of_capability.setdefault(gpu.compute_capability, plan) != plan:
                raise ContractError(
                    f"GPUs of compute capability {gpu.compute_capability} that are not called the same need a plan each, and Triton takes "
                    "one: build it with the hardware compatibility same-compute-capability, or show one kind with CUDA_VISIBLE_DEVICES"
                )
        files[number] = {names[capability]: (plan.folder / PLAN_FILE).resolve() for capability, plan in of_capability.items()}
        chosen += of_capability.values()
    profile = Profile(1, max(plan.record.profile.optimum for plan in chosen), max(1, config.max_batch_size))
    return Replacement(plan_config(config, versions, names, profile), files, any(plan.record.version_compatible for plan in chosen))


def _gpus(config: ModelConfig, here: Machine) -> list[Gpu]:
    """The GPUs that the model's instances would work on. Raises ContractError if some are to work on the CPU."""
    indices: set[int] = set()
    for group in config.instance_groups or (InstanceGroup(),):
        if group.kind not in ("KIND_AUTO", "KIND_GPU"):
            raise ContractError("its config.pbtxt keeps it off the GPU (instance_group)")
        indices.update(group.gpus or range(len(here.gpus)))
    if missing := sorted(index for index in indices if index >= len(here.gpus)):
        raise ContractError(f"its config.pbtxt asks for GPU {missing[0]}, and this machine shows {len(here.gpus)}")
    return [here.gpus[index] for index in sorted(indices)]


def _fitting(folder: ModelFolder, number: int, here: Fingerprint, *, allow_code: bool) -> Plan:
    """The newest plan that was built for `here`; its files are not checked yet. Raises ContractError that names what differs."""
    fitting: list[tuple[bool, Plan]] = []
    refused: list[tuple[int, str]] = []
    largest = folder.config.max_batch_size
    for plan_folder in plan_folders(folder.folder, number):
        try:
            plan = read_plan(plan_folder)
        except ContractError as error:
            refused.append((len(Fingerprint.__dataclass_fields__) + 1, str(error)))
            continue
        differing = differences(plan.record, here)
        if not differing and plan.record.version_compatible and not allow_code:
            differing.append("it is version compatible, so it brings code along, and that was not admitted")
        if not differing and not (plan.record.profile.minimum == 1 and plan.record.profile.maximum >= largest):
            differing.append(f"it takes batches up to {plan.record.profile.maximum}, and config.pbtxt allows {largest}")
        if differing:
            refused.append((len(differing), f"{plan.place}: {'; '.join(differing)}"))
        else:
            fitting.append((plan.record.fingerprint.gpu == here.gpu, plan))
    if not fitting:
        _, reason = min(refused, default=(0, f"version {number} has none"))
        raise ContractError(f"{reason}{f' (and {len(refused) - 1} other plans fit no better)' if len(refused) > 1 else ''}")
    return max(fitting, key=lambda pair: (pair[0], pair[1].record.created, pair[1].folder.name))[1]


def engine_folder(cache: Path, here: TensorRtMachine, sha256: str) -> Path:
    """Return a folder in `cache` for engines of this ONNX file on this very machine; it is made if it is missing. Raises MachineError.

    ONNX Runtime tells engines apart by the graph, not by its weights (microsoft/onnxruntime#6455), and wants its cache emptied by hand
    after every other change: here each of them leads to another folder.
    """
    described = hashlib.sha256(repr((here.machine, here.tensorrt)).encode()).hexdigest()
    folder = cache.resolve() / f"{sha256[:16]}-{described[:16]}"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise MachineError(f"the engine cache {folder} cannot be made: {reason_of(error)}") from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise MachineError(f"the engine cache {folder} cannot be written")
    return folder
