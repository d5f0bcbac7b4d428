"""ONNX Runtime's TensorRT provider, for models without a plan: ONNX Runtime builds engines when Triton loads the model, and keeps them.

It is set where Triton is started and not where a model is published: a `config.pbtxt` outlives versions, and an engine of the version
before, found again in its cache, would answer for the next one.
"""

import json
from pathlib import Path
from typing import Any, Final

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from sightline.errors import ContractError, SightlineError
from sightline.repository.tensorrt_plan import Profile, profile_for
from sightline_serving.process.installation import Installation
from sightline_serving.selection.int8_check import MAX_REPORT_BYTES
from sightline_serving.selection.plan_selection import Groups, Swap, engine_folder, onnx_sha256, warmed_up, where_plans_run
from sightline_serving.selection.preflight import CONFIG, Contents, ServedModel, read_config

NAME: Final = "tensorrt"
BACKEND: Final = "onnxruntime"
LIBRARY: Final = Path("onnxruntime", "libonnxruntime_providers_tensorrt.so")


def choose_provider(
    repository: Path, contents: Contents, triton: Installation, cache: Path, done: dict[str, Swap]
) -> tuple[dict[str, Swap], list[str]]:
    """Swaps that give the models of `contents` the TensorRT provider with engines in `cache`, but for those in `done`, which have plans.

    A model that cannot have it stays as it is, and a sentence says why.
    """
    swaps, notices, here = {}, [], None
    for model in contents.models:
        config = read_config(repository / model.name / CONFIG)
        # What takes encoded images for a model, and an ensemble, are not ONNX Runtime's.
        if model.name in done or config.backend != BACKEND:
            continue
        try:
            here = here or where_plans_run(triton, triton.backends / LIBRARY)
            number = _single(model)
            version = repository / model.name / str(number)
            sha256 = onnx_sha256(version, config.default_model_filename or "model.onnx")
            _check_fit(config, version)
            text = with_tensorrt_provider(config, engine_folder(cache, here, sha256), profile_for(max(1, config.max_batch_size)), number)
            swaps[model.name] = Swap(text, {})
        except (SightlineError, OSError) as error:
            notices.append(f"{model.name} is answered without ONNX Runtime's TensorRT provider: {error}")
    return swaps, notices


def with_tensorrt_provider(config: Any, cache: Path, profile: Profile, version: int) -> str:
    """The text of the ModelConfig message with the TensorRT provider, its engines in `cache`, and a warm-up at the profile's batches.

    Without the warm-up the first requests would wait for the engine. `precision_mode` stays unset: the precision is the ONNX file's
    own, and TensorRT 11 knows no such switch.
    """
    changed = model_config_pb2.ModelConfig()
    changed.CopyFrom(config)
    changed.version_policy.specific.versions[:] = [version]
    accelerators = changed.optimization.execution_accelerators.gpu_execution_accelerator
    others = [each for each in accelerators if each.name != NAME]
    del accelerators[:]
    accelerators.extend(others)
    accelerator = accelerators.add(name=NAME)
    for key, value in {
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(cache),
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(cache),
        "trt_profile_min_shapes": _shapes(changed, profile.minimum),
        "trt_profile_opt_shapes": _shapes(changed, profile.optimum),
        "trt_profile_max_shapes": _shapes(changed, profile.maximum),
    }.items():
        accelerator.parameters[key] = value
    warmed_up(changed, profile)
    text: str = text_format.MessageToString(changed, as_utf8=False)
    return text


def _shapes(config: Any, batch: int) -> str:
    """`pixels:8x224x224x3`, as ONNX Runtime writes shapes."""
    return ",".join(f"{each.name}:{'x'.join(map(str, [batch, *each.dims]))}" for each in config.input)


def _single(model: ServedModel) -> int:
    if len(model.versions) > 1:
        raise ContractError(f"versions {', '.join(map(str, model.versions))} share one config.pbtxt, and each needs a cache of its own")
    return model.versions[0]


def _check_fit(config: Any, version: Path) -> None:
    if any(group.kind not in (Groups.KIND_AUTO, Groups.KIND_GPU) for group in config.instance_group):
        raise ContractError("its config.pbtxt keeps it off the GPU (instance_group)")
    try:
        with (version / "report.json").open("rb") as opened:
            precision = json.loads(opened.read(MAX_REPORT_BYTES)).get("precision")
    except (OSError, ValueError, AttributeError, RecursionError):
        return
    if precision == "int8":
        raise ContractError("it is INT8 with unsigned activations, and TensorRT takes signed ones only")
