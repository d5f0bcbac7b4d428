"""Which models are answered by their TensorRT plans on this machine, and, for the others, which field of the fingerprint differs.

The repository never changes for it. Where plans fit, Triton is shown another `config.pbtxt` and the plans instead of the ONNX files;
where one does not, it sees the repository as it is, and ONNX Runtime answers.
"""

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from sightline.errors import ContractError, MachineError, SightlineError, UsageError
from sightline.host.gpu import Machine, machine, needed_library, tensorrt_version
from sightline.repository.tensorrt_plan import (
    PLAN_FILE,
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
from sightline_serving.selection.preflight import CONFIG, Contents, ServedModel, read_config

BACKEND: Final = "tensorrt"
PLATFORM: Final = "tensorrt_plan"
LIBRARY: Final = "libtriton_tensorrt.so"
TENSORRT: Final = "libnvinfer"
ALLOW_CODE: Final = "tensorrt,version-compatible=true"
"""`--backend-config` without which Triton loads no plan that brings code along (tensorrt_backend, README)."""

Groups = model_config_pb2.ModelInstanceGroup


@dataclass(frozen=True)
class Swap:
    """What Triton is shown of a model instead of what lies in the repository."""

    config: str
    """The text of its `config.pbtxt`."""
    files: Mapping[int, Mapping[str, Path]]
    """Version → name → file, for versions that hold nothing but these; other versions are as they are."""
    brings_code: bool = False
    """Whether a plan among the files is version compatible."""


@dataclass(frozen=True)
class Here:
    """A machine, and the TensorRT library that Triton would load a plan with."""

    machine: Machine
    tensorrt: str


def choose_plans(repository: Path, contents: Contents, triton: Installation, *, allow_code: bool) -> tuple[dict[str, Swap], list[str]]:
    """For each model of `contents` that has plans: the swap that lets them answer, or a sentence that says why ONNX Runtime does.

    `allow_code` admits version-compatible plans, which hold a TensorRT runtime that Triton would run. Raises nothing for a plan that
    is damaged or unreadable: the published ONNX file is there and answers.
    """
    swaps, notices, here = {}, [], None
    for model in contents.models:
        folder = repository / model.name
        try:
            if not any(plan_folders(folder, number) for number in model.versions):
                continue
            here = here or where_plans_run(triton, triton.backends / BACKEND / LIBRARY)
            swaps[model.name] = swap_for(folder, model, here, allow_code=allow_code)
        except (SightlineError, OSError) as error:
            called = f"{model.name} version {', '.join(map(str, model.versions))}"
            notices.append(
                f"{called} is answered by ONNX Runtime and not by a TensorRT plan: {error}. For a plan that fits, run "
                f"`sightline finalize {model.name}` on this machine"
            )
    return swaps, notices


def where_plans_run(triton: Installation, library: Path) -> Here:
    """The machine as the `library` of a backend sees it. Raises MachineError if it has no TensorRT, no driver or no GPU."""
    name = needed_library(library, TENSORRT) if library.is_file() else None
    if name is None:
        raise MachineError(f"{triton.called} has no TensorRT (no {library.parent.name}/{library.name} that needs it)")
    environment = triton.environment()
    return Here(machine(environment), tensorrt_version(name, environment))


def onnx_sha256(version: Path, name: str) -> str:
    """The hash of a version's ONNX file as it lies there. Raises OSError."""
    with (version / name).open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def warmed_up(config: Any, profile: Profile) -> None:
    """Warm the model of the ModelConfig message up at each batch of the profile: Triton is ready only when they are answered.

    With the image that its own warm-up names, if it has one; else with zeros.
    """
    own = next(iter(config.model_warmup), None)
    file = {name: sent.input_data_file for name, sent in own.inputs.items()} if own is not None else {}
    del config.model_warmup[:]
    for batch in profile.batches:
        warmup = config.model_warmup.add(name=f"tensorrt-batch-{batch}", batch_size=batch)
        for each in config.input:
            sent = warmup.inputs[each.name]
            sent.data_type = each.data_type
            sent.dims.extend(each.dims)
            if file.get(each.name):
                sent.input_data_file = file[each.name]
            else:
                sent.zero_data = True


def planned_config(config: Any, versions: Sequence[int], names: Mapping[str, str], profile: Profile) -> str:
    """The text of the ModelConfig message, changed to serve the plans `names` (compute capability → file name)."""
    changed = model_config_pb2.ModelConfig()
    changed.CopyFrom(config)
    changed.backend, changed.platform = BACKEND, PLATFORM
    changed.version_policy.specific.versions[:] = versions
    changed.optimization.ClearField("execution_accelerators")
    for group in changed.instance_group:
        group.kind = Groups.KIND_GPU
    # One plan is simply the model's file. Of several each has its own name and the default is missing, so that no GPU gets another's.
    changed.default_model_filename = PLAN_FILE
    if len(names) > 1:
        for capability, name in names.items():
            changed.cc_model_filenames[capability] = name
    warmed_up(changed, profile)
    text: str = text_format.MessageToString(changed, as_utf8=False)
    return text


def swap_for(folder: Path, model: ServedModel, here: Here, *, allow_code: bool) -> Swap:
    """The swap that lets plans of the model in `folder` answer `here`. Raises ContractError that names what differs."""
    config = read_config(folder / CONFIG)
    gpus = _gpus(config, here.machine)
    files: dict[int, dict[str, Path]] = {}
    chosen: list[Plan] = []
    names = {gpu.compute_capability: f"model.{shader_model(gpu.compute_capability)}.plan" for gpu in gpus}
    if len(names) == 1:
        names = dict.fromkeys(names, PLAN_FILE)
    for number in model.versions:
        sha256 = onnx_sha256(folder / str(number), config.default_model_filename or "model.onnx")
        of_capability: dict[str, Plan] = {}
        for gpu in dict.fromkeys(gpus):
            wanted = Fingerprint(
                here.tensorrt, here.machine.cuda, here.machine.driver, gpu.name, gpu.compute_capability, here.machine.system, sha256
            )
            plan = _fitting(folder, number, wanted, config.max_batch_size, allow_code=allow_code)
            if of_capability.setdefault(gpu.compute_capability, plan) != plan:
                raise ContractError(
                    f"GPUs of compute capability {gpu.compute_capability} that are not called the same need a plan each, and Triton takes "
                    "one: build it with --hardware-compatibility same-compute-capability, or show one kind with CUDA_VISIBLE_DEVICES"
                )
        files[number] = {names[capability]: (plan.folder / PLAN_FILE).resolve() for capability, plan in of_capability.items()}
        chosen += of_capability.values()
    profile = Profile(1, max(plan.record.profile.optimum for plan in chosen), max(1, config.max_batch_size))
    text = planned_config(config, model.versions, names, profile)
    return Swap(text, files, any(plan.record.version_compatible for plan in chosen))


def _gpus(config: Any, there: Machine) -> list[Any]:
    """The GPUs that the model's instances would work on. Raises ContractError if some are to work on the CPU."""
    indices: set[int] = set()
    for group in config.instance_group or [Groups()]:
        if group.kind not in (Groups.KIND_AUTO, Groups.KIND_GPU):
            raise ContractError("its config.pbtxt keeps it off the GPU (instance_group)")
        indices.update(group.gpus or range(len(there.gpus)))
    if missing := sorted(index for index in indices if index >= len(there.gpus)):
        raise ContractError(f"its config.pbtxt asks for GPU {missing[0]}, and this machine shows {len(there.gpus)}")
    return [there.gpus[index] for index in sorted(indices)]


def _fitting(model: Path, number: int, here: Fingerprint, max_batch_size: int, *, allow_code: bool) -> Plan:
    """The newest plan that was built for `here`, its files checked. Raises ContractError that names what differs."""
    found: list[tuple[int, Plan]] = []
    refused: list[tuple[int, str]] = []
    for folder in plan_folders(model, number):
        try:
            plan = read_plan(folder)
        except ContractError as error:
            refused.append((len(Fingerprint.__dataclass_fields__) + 1, str(error)))
            continue
        differing = differences(plan.record, here)
        if not differing and plan.record.version_compatible and not allow_code:
            differing.append("it brings code along (--version-compatible), which `sightline serve --version-compatible` admits")
        if not differing and not (plan.record.profile.minimum == 1 and plan.record.profile.maximum >= max_batch_size):
            differing.append(f"it takes batches up to {plan.record.profile.maximum}, and config.pbtxt allows {max_batch_size}")
        if differing:
            refused.append((len(differing), f"{plan.called}: {'; '.join(differing)}"))
        else:
            found.append((plan.record.fingerprint.gpu == here.gpu, plan))
    if not found:
        _, reason = min(refused, default=(0, f"version {number} has none"))
        raise ContractError(f"{reason}{f' (and {len(refused) - 1} other plans fit no better)' if len(refused) > 1 else ''}")
    plan = max(found, key=lambda pair: (pair[0], pair[1].record.created, pair[1].folder.name))[1]
    # A plan is code: what was not built here by `finalize` is not handed to TensorRT.
    check_plan(plan)
    return plan


def engine_folder(cache: Path, here: Here, sha256: str) -> Path:
    """A folder in `cache` for engines of this ONNX file on this very machine, made if it is missing. Raises UsageError if it cannot be.

    ONNX Runtime tells engines apart by the graph, not by its weights (microsoft/onnxruntime#6455), and wants its cache emptied by hand
    after every other change: here each of them leads to another folder.
    """
    described = hashlib.sha256(repr((here.machine, here.tensorrt)).encode()).hexdigest()
    folder = cache.resolve() / f"{sha256[:16]}-{described[:16]}"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"the engine cache {folder} cannot be made: {error.strerror or error}") from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"the engine cache {folder} cannot be written")
    return folder
