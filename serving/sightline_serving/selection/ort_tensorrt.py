"""ONNX Runtime's TensorRT provider, for models without a plan: ONNX Runtime builds engines when Triton loads the model, and keeps them.

It is set where Triton is started and not where a model is published: a `config.pbtxt` outlives versions, and an engine of the version
before, found again in its cache, would answer for the next one.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from sightline.errors import ContractError, SightlineError
from sightline.repository.config import Accelerator, ModelConfig, VersionPolicy
from sightline.repository.layout import ONNX_FILE
from sightline.repository.read import ModelVersion
from sightline.repository.tensorrt_plan import Profile, profile_for
from sightline_serving.process.installation import Installation
from sightline_serving.selection.plan_selection import Replacement, engine_folder, machine_of_plans, with_warm_ups
from sightline_serving.selection.preflight import SelectedModel, Selection

NAME: Final = "tensorrt"
BACKEND: Final = "onnxruntime"
LIBRARY: Final = Path("onnxruntime", "libonnxruntime_providers_tensorrt.so")


def choose_provider(
    selection: Selection, triton: Installation, cache: Path, with_plans: Mapping[str, Replacement]
) -> tuple[dict[str, Replacement], list[str]]:
    """Return replacements that give the selected models the TensorRT provider with engines in `cache`, but for those `with_plans`.

    A model that cannot have it stays as it is, and a sentence says why.
    """
    replacements, notices, here = {}, [], None
    for model in selection.models:
        folder = selection.folders[model.name]
        # What takes encoded images for a model, and an ensemble, are not ONNX Runtime's.
        if model.name in with_plans or folder.config.backend != BACKEND:
            continue
        try:
            here = here or machine_of_plans(triton, triton.backends / LIBRARY)
            version = folder.version(_single(model))
            sha256 = selection.hashes.of(version.folder / (folder.config.default_file or ONNX_FILE))
            _check_fit(folder.config, version)
            profile = profile_for(max(1, folder.config.max_batch_size))
            config = with_tensorrt_provider(folder.config, engine_folder(cache, here, sha256), profile, version.number)
            replacements[model.name] = Replacement(config, {})
        except (SightlineError, OSError) as error:
            notices.append(f"{model.name} is answered without ONNX Runtime's TensorRT provider: {error}")
    return replacements, notices


def with_tensorrt_provider(config: ModelConfig, cache: Path, profile: Profile, version: int) -> ModelConfig:
    """Return the configuration with the TensorRT provider, its engines in `cache`, and a warm-up at the profile's batches.

    Without the warm-up the first requests would wait for the engine. `precision_mode` stays unset: the precision is the ONNX file's
    own, and TensorRT 11 knows no such switch.
    """
    provider = Accelerator(
        NAME,
        (
            ("trt_engine_cache_enable", "1"),
            ("trt_engine_cache_path", str(cache)),
            ("trt_profile_max_shapes", _shapes(config, profile.maximum)),
            ("trt_profile_min_shapes", _shapes(config, profile.minimum)),
            ("trt_profile_opt_shapes", _shapes(config, profile.optimum)),
            ("trt_timing_cache_enable", "1"),
            ("trt_timing_cache_path", str(cache)),
        ),
    )
    changed = replace(
        config,
        policy=VersionPolicy("specific", versions=(version,)),
        gpu_accelerators=(*(other for other in config.gpu_accelerators if other.name != NAME), provider),
    )
    return with_warm_ups(changed, profile)


def _shapes(config: ModelConfig, batch: int) -> str:
    """`pixels:8x224x224x3`, as ONNX Runtime writes shapes."""
    return ",".join(f"{tensor.name}:{'x'.join(map(str, [batch, *tensor.dims]))}" for tensor in config.inputs)


def _single(model: SelectedModel) -> int:
    if len(model.versions) > 1:
        raise ContractError(f"versions {', '.join(map(str, model.versions))} share one config.pbtxt, and each needs a cache of its own")
    return model.versions[0]


def _check_fit(config: ModelConfig, version: ModelVersion) -> None:
    if any(group.kind not in ("KIND_AUTO", "KIND_GPU") for group in config.instance_groups):
        raise ContractError("its config.pbtxt keeps it off the GPU (instance_group)")
    if version.described is not None and version.described.precision == "int8":
        raise ContractError("it is INT8 with unsigned activations, and TensorRT takes signed ones only")
