"""A plan answers only on a machine like the one that built it; anywhere else ONNX Runtime does, and the field that differs is named.

What decides is tested here; that TensorRT loads what was decided on needs a GPU (tests/export/test_tensorrt_engine.py).
"""

import json
import os
import sys
import sysconfig
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from sightline.classifier import Classifier
from sightline.errors import ContractError, MachineError, ServerStartError, UsageError
from sightline.host.gpu import Gpu, driver_version, machine, needed_library, tensorrt_version
from sightline.repository import hashes
from sightline.repository.config import ModelConfig, VersionPolicy, WarmUp, WarmUpTensor
from sightline.repository.config_text import config_text, parse_config
from sightline.repository.hashes import FileHashes
from sightline.repository.read import read_folder
from sightline.repository.tensorrt_plan import DIFFERENCES, Profile, check_plan, differences, identity, profile_for, read_plan
from sightline_serving.process.installation import Installation
from sightline_serving.selection.ort_tensorrt import choose_provider, with_tensorrt_provider
from sightline_serving.selection.overlay import View, overlay
from sightline_serving.selection.plan_selection import (
    PLATFORM,
    Replacement,
    TensorRtMachine,
    choose_plans,
    engine_folder,
    plan_config,
    with_plans,
    with_warm_ups,
)
from sightline_serving.selection.preflight import select_models
from sightline_serving.server import start_server
from sightline_serving.settings import FREE_PORTS
from support.plans import A100, H100, H200, T4, fingerprint, here, record_plan
from support.tiny_models import InProcess, Publish, write_config

AUTO = pb.ModelInstanceGroup(kind=pb.ModelInstanceGroup.KIND_AUTO, count=1)

OTHERS = {
    "tensorrt": ("11.3.0.52", "it was built with TensorRT 11.3.0.52, and here TensorRT is 11.4.0.106"),
    "cuda": ("13.1", "it was built with CUDA 13.1, and this driver offers CUDA 13.2"),
    "driver": ("580.65.06", "it was built with driver 580.65.06, and here the driver is 590.48.01"),
    "gpu": ("NVIDIA H100 80GB HBM3", "it was built on a GPU called NVIDIA H100 80GB HBM3, and this one is called NVIDIA H200"),
    "compute_capability": ("8.9", "it was built for compute capability 8.9, and this GPU has 9.0"),
    "system": ("Linux aarch64", "it was built on Linux aarch64, and this is Linux x86_64"),
    "onnx_sha256": ("ab" * 32, "it was built from another ONNX file (sha256 abababababab…, the version's is "),
}


@pytest.fixture
def version(publish: Publish, tmp_path: Path) -> Path:
    """Version 1 of a model whose instances go where there is a GPU, as the exporter writes it."""
    return on_auto(publish(tmp_path / "models"))


def on_auto(version: Path) -> Path:
    config = read_config(version.parent / "config.pbtxt")
    config.instance_group[0].kind = pb.ModelInstanceGroup.KIND_AUTO
    (version.parent / "config.pbtxt").write_text(text_format.MessageToString(config))
    return version


def read_config(file: Path) -> pb.ModelConfig:
    return parsed(file.read_text(encoding="utf-8"))


def typed_config(version: Path) -> ModelConfig:
    return read_folder(version.parent).config


def chosen(version: Path, there: TensorRtMachine, *, allow_code: bool = False, versions: tuple[int, ...] = (1,)) -> Replacement:
    return with_plans(read_folder(version.parent), versions, there, FileHashes(), allow_code=allow_code)


def reason(version: Path, there: TensorRtMachine, **more: object) -> str:
    with pytest.raises(ContractError) as refused:
        chosen(version, there, **more)  # type: ignore[arg-type]
    return str(refused.value)


def parsed(config: str | ModelConfig) -> pb.ModelConfig:
    return text_format.Parse(config if isinstance(config, str) else config_text(config), pb.ModelConfig())


# The decision


def test_a_plan_of_this_machine_takes_the_place_of_the_onnx_file(version: Path) -> None:
    folder = record_plan(version)
    swap = chosen(version, here())
    config, before = parsed(swap.config), read_config(version.parent / "config.pbtxt")
    assert (config.backend, config.platform, config.default_model_filename) == ("tensorrt", PLATFORM, "model.plan")
    assert list(config.version_policy.specific.versions) == [1]
    assert [group.kind for group in config.instance_group] == [pb.ModelInstanceGroup.KIND_GPU]
    assert dict(config.cc_model_filenames) == {}
    assert swap.files == {1: {"model.plan": folder / "model.plan"}}
    assert swap.brings_code is False
    assert [(warmup.batch_size, dict(warmup.inputs)["pixels"].dims[:]) for warmup in config.model_warmup] == [
        (batch, [6, 5, 3]) for batch in (1, 4, 8)
    ]
    for same in ("name", "max_batch_size", "input", "output", "parameters", "dynamic_batching"):
        assert getattr(config, same) == getattr(before, same)


@pytest.mark.parametrize("field", DIFFERENCES)
def test_a_differing_field_is_named_with_both_values(field: str, version: Path) -> None:
    value, sentence = OTHERS[field]
    changed: dict[str, Any] = {field: value}
    folder = record_plan(version, **changed)
    assert reason(version, here()).startswith(f"plans/1/{folder.name}: {sentence}")
    with pytest.raises(ContractError):
        chosen(version, here(), allow_code=True)


def test_of_several_plans_that_do_not_fit_the_closest_is_named(version: Path) -> None:
    record_plan(version, tensorrt="10.9.0.34", driver="1.0", cuda="12.8")
    near = record_plan(version, driver="580.65.06")
    assert reason(version, here()) == (
        f"plans/1/{near.name}: it was built with driver 580.65.06, and here the driver is 590.48.01 (and 1 other plans fit no better)"
    )


def test_the_newest_of_several_that_fit_is_taken(version: Path) -> None:
    record_plan(version, batch=8)
    newer = record_plan(version, hardware_compatibility="ampere-plus", created="2026-11-22T12:00:00+00:00")
    assert chosen(version, here()).files[1]["model.plan"].parent == newer


@pytest.mark.parametrize(
    ("level", "gpu", "fits"),
    [
        ("same-compute-capability", H100, True),
        ("same-compute-capability", A100, False),
        ("ampere-plus", H100, True),
        ("ampere-plus", A100, True),
        ("ampere-plus", T4, False),
        ("none", H100, False),
    ],
)
def test_hardware_compatibility_bridges_what_it_was_built_to_bridge(level: str, gpu: Gpu, fits: bool, version: Path) -> None:
    plan = read_plan(record_plan(version, hardware_compatibility=level))
    assert (differences(plan.record, fingerprint(version, gpu)) == []) is fits


@pytest.mark.parametrize(
    ("built", "present", "fits"),
    [("11.3.0.52", "11.4.0.106", True), ("11.5.0.1", "11.4.0.106", False), ("10.9.0.34", "11.4.0.106", False)],
)
def test_a_version_compatible_plan_runs_on_newer_tensorrt_of_the_same_major_version(
    built: str, present: str, fits: bool, version: Path
) -> None:
    plan = read_plan(record_plan(version, tensorrt=built, version_compatible=True))
    assert (differences(plan.record, fingerprint(version, tensorrt=present)) == []) is fits


def test_a_plan_that_brings_code_along_is_served_only_when_asked_for(version: Path) -> None:
    folder = record_plan(version, version_compatible=True)
    assert reason(version, here()) == (
        f"plans/1/{folder.name}: it is version compatible, so it brings code along, and that was not admitted"
    )
    assert chosen(version, here(), allow_code=True).brings_code is True


def test_a_plan_whose_file_was_changed_is_not_handed_to_tensorrt(version: Path) -> None:
    folder = record_plan(version)
    (folder / "model.plan").write_bytes(b"another")
    assert reason(version, here()).startswith(f"plans/1/{folder.name}/model.plan was changed after it was built (sha256 ")


def test_a_plan_that_is_a_link_to_elsewhere_is_refused(version: Path, tmp_path: Path) -> None:
    folder = record_plan(version)
    (folder / "model.plan").rename(tmp_path / "elsewhere")
    (folder / "model.plan").symlink_to(tmp_path / "elsewhere")
    assert reason(version, here()) == f"plans/1/{folder.name}/model.plan is a link that leads elsewhere"


def test_a_plan_whose_file_is_missing_is_refused(version: Path) -> None:
    folder = record_plan(version)
    (folder / "layers.json").unlink()
    with pytest.raises(ContractError, match=r"layers\.json cannot be read: No such file or directory$"):
        check_plan(read_plan(folder))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"schema": 2}, "(schema: "),
        ({"surprise": 1}, "(surprise: Extra inputs are not permitted)"),
        ({"tf32": True}, "(tf32: "),
        ({"precision": "FP16, best"}, "(precision: "),
        ({"build_seconds": "12"}, "(build_seconds: "),
        ({"files": {"model.plan": "ab" * 32}}, "does not list model.plan and layers.json"),
        ({"files": {"model.plan": "no hash", "layers.json": "ab" * 32}}, "(files.model.plan: "),
        ({"model": "other"}, "belongs to other version 1"),
        ({"version": 7}, "belongs to tiny version 7"),
    ],
)
def test_a_record_that_cannot_be_believed_is_refused(change: dict[str, Any], sentence: str, version: Path) -> None:
    folder = record_plan(version, **change)
    with pytest.raises(ContractError) as refused:
        read_plan(folder)
    assert sentence in str(refused.value)
    assert "Delete " in str(refused.value)
    assert sentence in reason(version, here())


@pytest.mark.parametrize("content", ["", "[]", "{", "[" * 100_000, '{"schema": 1}', "\x00", '{"schema": NaN}'])
def test_what_is_no_record_is_refused_and_is_no_reason_to_fail(content: str, version: Path) -> None:
    folder = record_plan(version)
    (folder / "plan.json").write_text(content)
    with pytest.raises(ContractError, match=r"plan\.json is no"):
        read_plan(folder)


def test_a_record_of_many_megabytes_is_not_read(version: Path) -> None:
    folder = record_plan(version)
    with (folder / "plan.json").open("w") as file:
        file.truncate(5 * 1024 * 1024)
    with pytest.raises(ContractError, match=r"plan\.json cannot be read: larger than 4 MiB"):
        read_plan(folder)


def test_a_plan_for_smaller_batches_than_the_configuration_allows_is_refused(version: Path) -> None:
    folder = record_plan(version, batch=4)
    assert reason(version, here()) == f"plans/1/{folder.name}: it takes batches up to 4, and config.pbtxt allows 8"


def test_a_model_that_is_kept_on_the_cpu_stays_there(publish: Publish, tmp_path: Path) -> None:
    version = publish(tmp_path / "models")
    record_plan(version)
    assert reason(version, here()) == "its config.pbtxt keeps it off the GPU (instance_group)"


def test_every_served_version_needs_a_plan(publish: Publish, version: Path) -> None:
    other = on_auto(publish(version.parents[1], version=2, seed=1))
    record_plan(version)
    assert reason(version, here(), versions=(1, 2)) == "version 2 has none"
    record_plan(other)
    assert set(chosen(version, here(), versions=(1, 2)).files) == {1, 2}


# Fleets


def test_gpus_of_several_compute_capabilities_get_a_plan_each(version: Path) -> None:
    ours, theirs = record_plan(version, H200), record_plan(version, A100)
    swap = chosen(version, here(H200, A100, H200))
    config = parsed(swap.config)
    assert dict(config.cc_model_filenames) == {"9.0": "model.sm90.plan", "8.0": "model.sm80.plan"}
    assert swap.files == {1: {"model.sm90.plan": ours / "model.plan", "model.sm80.plan": theirs / "model.plan"}}
    assert config.default_model_filename not in swap.files[1]


def test_a_gpu_without_a_plan_keeps_the_whole_model_on_onnx_runtime(version: Path) -> None:
    record_plan(version, H200)
    assert "and this GPU has 8.0" in reason(version, here(H200, A100))
    config = read_config(version.parent / "config.pbtxt")
    config.instance_group[0].gpus[:] = [0]
    (version.parent / "config.pbtxt").write_text(text_format.MessageToString(config))
    assert set(chosen(version, here(H200, A100)).files[1]) == {"model.plan"}
    assert reason(version, here(H100)).startswith("plans/1/sm90-")
    config.instance_group[0].gpus[:] = [2]
    (version.parent / "config.pbtxt").write_text(text_format.MessageToString(config))
    assert reason(version, here(H200, A100)) == "its config.pbtxt asks for GPU 2, and this machine shows 2"


def test_two_kinds_of_gpu_with_one_compute_capability_need_a_plan_that_fits_both(version: Path) -> None:
    record_plan(version, H200)
    record_plan(version, H100)
    assert "need a plan each, and Triton takes one" in reason(version, here(H200, H100))


# What Triton is shown


def test_the_view_holds_the_plans_instead_of_the_onnx_files_and_the_repository_stays(
    version: Path, publish: Publish, tmp_path: Path
) -> None:
    publish(version.parents[1], "other")
    folder = record_plan(version, content=b"the plan")
    (version.parent / "warmup").mkdir()
    repository = version.parents[1]
    before = sorted(repository.rglob("*"))
    (tmp_path / "run").mkdir()
    view = overlay(repository, select_models(repository), View({"tiny": chosen(version, here())}), tmp_path / "run")
    assert sorted(path.name for path in (view / "tiny" / "1").iterdir()) == ["model.plan"]
    assert (view / "tiny" / "1" / "model.plan").read_bytes() == b"the plan"
    assert (view / "tiny" / "1" / "model.plan").resolve() == folder / "model.plan"
    assert sorted(path.name for path in (view / "tiny").iterdir()) == ["1", "config.pbtxt", "labels.txt", "plans", "warmup"]
    assert parsed((view / "tiny" / "config.pbtxt").read_text()).backend == "tensorrt"
    assert (view / "other").resolve() == repository / "other"
    assert sorted(repository.rglob("*")) == before


@pytest.mark.triton
def test_the_wheels_triton_has_no_tensorrt_so_onnx_runtime_answers_and_it_is_said(version: Path, in_process: InProcess) -> None:
    record_plan(version)
    with start_server(version.parents[1], FREE_PORTS) as server:
        notices = [notice for notice in server.notices if notice.startswith("tiny version 1 ")]
        assert notices == [
            (
                "tiny version 1 is answered by ONNX Runtime and not by a TensorRT plan: the nvidia-pytriton wheel has no TensorRT (no "
                "tensorrt/libtriton_tensorrt.so that needs it). For a plan that fits, run `sightline finalize tiny` on this machine"
            )
        ]
        pixels = np.random.default_rng(0).integers(0, 256, (3, 6, 5, 3), np.uint8)
        with Classifier("tiny", server.grpc_url) as tiny:
            assert np.abs(tiny.probabilities_of_pixels(pixels) - in_process(version / "model.onnx", pixels)).max() < 1e-6
    with start_server(version.parents[1], replace(FREE_PORTS, plans=False)) as server:
        assert not [notice for notice in server.notices if "TensorRT" in notice]


@pytest.mark.triton
def test_triton_reads_the_configuration_of_a_plan_and_misses_nothing_but_the_backend(version: Path) -> None:
    names = {"9.0": "model.sm90.plan", "8.0": "model.sm80.plan"}
    text = config_text(plan_config(typed_config(version), [1], names, Profile(1, 4, 8))).replace("KIND_GPU", "KIND_CPU")
    (version.parent / "config.pbtxt").write_text(text)
    with pytest.raises(ServerStartError) as refused, start_server(version.parents[1], replace(FREE_PORTS, verify_hashes=False)):
        pytest.fail("it started")
    assert "tensorrt" in str(refused.value)
    assert "backend" in str(refused.value)


@pytest.mark.skipif(os.path.exists("/dev/nvidiactl"), reason="this machine has an NVIDIA driver")
def test_a_triton_with_tensorrt_on_a_machine_without_a_gpu_answers_by_onnx_runtime(version: Path, tmp_path: Path) -> None:
    record_plan(version)
    backends = tmp_path / "backends"
    (backends / "tensorrt").mkdir(parents=True)
    (backends / "tensorrt" / "libtriton_tensorrt.so").write_bytes(b"\x7fELF\0libc.so.6\0libnvinfer.so.11\0")
    triton = Installation(tmp_path / "bin" / "tritonserver", backends, (), backends / "stub", bundled=False)
    selection = select_models(version.parents[1])
    assert choose_plans(selection, triton, allow_code=False) == (
        {},
        [
            (
                "tiny version 1 is answered by ONNX Runtime and not by a TensorRT plan: there is no NVIDIA driver on this machine "
                "(libcuda.so.1 is missing). For a plan that fits, run `sightline finalize tiny` on this machine"
            )
        ],
    )
    library = backends / "onnxruntime" / "libonnxruntime_providers_tensorrt.so"
    assert choose_provider(selection, triton, tmp_path / "engines", {})[1] == [
        (
            f"tiny is answered without ONNX Runtime's TensorRT provider: {triton.binary} has no TensorRT (no onnxruntime/{library.name} "
            "that needs it)"
        )
    ]
    library.parent.mkdir()
    library.write_bytes((backends / "tensorrt" / "libtriton_tensorrt.so").read_bytes())
    assert choose_provider(selection, triton, tmp_path / "engines", {})[1] == [
        "tiny is answered without ONNX Runtime's TensorRT provider: there is no NVIDIA driver on this machine (libcuda.so.1 is missing)"
    ]


def test_a_model_without_plans_is_not_talked_about(version: Path, tmp_path: Path) -> None:
    triton = Installation(tmp_path / "tritonserver", tmp_path, (), tmp_path / "stub", bundled=False)
    assert choose_plans(select_models(version.parents[1]), triton, allow_code=False) == ({}, [])


# ONNX Runtime's provider


def test_the_provider_is_set_with_cache_profile_and_warm_up_and_no_precision(version: Path, tmp_path: Path) -> None:
    with_provider = with_tensorrt_provider(typed_config(version), tmp_path / "engines", profile_for(8), 1)
    config = parsed(with_provider)
    accelerators = config.optimization.execution_accelerators
    assert len(accelerators.cpu_execution_accelerator) == 0
    assert [accelerator.name for accelerator in accelerators.gpu_execution_accelerator] == ["tensorrt"]
    assert dict(accelerators.gpu_execution_accelerator[0].parameters) == {
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(tmp_path / "engines"),
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(tmp_path / "engines"),
        "trt_profile_min_shapes": "pixels:1x6x5x3",
        "trt_profile_opt_shapes": "pixels:4x6x5x3",
        "trt_profile_max_shapes": "pixels:8x6x5x3",
    }
    assert [warmup.batch_size for warmup in config.model_warmup] == [1, 4, 8]
    assert (config.backend, config.default_model_filename) == ("onnxruntime", "model.onnx")
    again = parsed(with_tensorrt_provider(parse_config(config_text(with_provider), ""), tmp_path / "elsewhere", profile_for(8), 1))
    assert len(again.optimization.execution_accelerators.gpu_execution_accelerator) == 1


def test_the_profile_is_warmed_up_with_the_models_own_image_in_place_of_its_own_sizes(version: Path) -> None:
    own = WarmUp("golden picture, batch of 2", 2, (WarmUpTensor("pixels", "TYPE_UINT8", (6, 5, 3), "golden"),))
    config = parsed(with_warm_ups(replace(typed_config(version), warm_ups=(own,)), Profile(1, 4, 8)))
    assert [(warmup.batch_size, warmup.inputs["pixels"].input_data_file) for warmup in config.model_warmup] == [
        (1, "golden"),
        (4, "golden"),
        (8, "golden"),
    ]


@pytest.mark.triton
def test_triton_takes_the_configuration_and_is_ready_after_the_warm_up(version: Path, in_process: InProcess, tmp_path: Path) -> None:
    config = with_tensorrt_provider(typed_config(version), tmp_path / "engines", profile_for(8), 1)
    (version.parent / "config.pbtxt").write_text(config_text(config))
    with start_server(version.parents[1], replace(FREE_PORTS, log_file=tmp_path / "log")) as server:
        pixels = np.random.default_rng(0).integers(0, 256, (3, 6, 5, 3), np.uint8)
        with Classifier("tiny", server.grpc_url) as tiny:
            assert np.abs(tiny.probabilities_of_pixels(pixels) - in_process(version / "model.onnx", pixels)).max() < 1e-6


@pytest.mark.triton
def test_without_tensorrt_the_provider_is_left_out_and_it_is_said(version: Path, tmp_path: Path) -> None:
    with start_server(version.parents[1], replace(FREE_PORTS, engine_cache=tmp_path / "engines")) as server:
        assert [notice for notice in server.notices if "provider" in notice] == [
            (
                "tiny is answered without ONNX Runtime's TensorRT provider: the nvidia-pytriton wheel has no TensorRT (no "
                "onnxruntime/libonnxruntime_providers_tensorrt.so that needs it)"
            )
        ]
    assert not (tmp_path / "engines").exists()


def test_engines_of_another_file_or_machine_lie_in_another_folder(tmp_path: Path) -> None:
    folders = {
        engine_folder(tmp_path, there, sha256)
        for there in (here(), here(H100), here(tensorrt="11.3.0.52"), here(H200, A100))
        for sha256 in ("ab" * 32, "cd" * 32)
    }
    assert len(folders) == 8
    assert all(folder.is_dir() and folder.parent == tmp_path for folder in folders)


def test_an_engine_cache_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(MachineError, match=r"^the engine cache .*/file/abababababababab-[0-9a-f]{16} cannot be made: Not a directory$"):
        engine_folder(tmp_path / "file", here(), "ab" * 32)


# The machine


@pytest.mark.skipif(os.path.exists("/dev/nvidiactl"), reason="this machine has an NVIDIA driver")
def test_a_machine_without_a_driver_says_so() -> None:
    with pytest.raises(MachineError, match=r"^there is no NVIDIA driver on this machine \(libcuda\.so\.1 is missing\)$"):
        machine()


def test_a_tensorrt_library_that_cannot_be_loaded_is_named() -> None:
    with pytest.raises(
        MachineError, match=r"^the TensorRT library libnvinfer\.so\.999 does not tell its version \(libnvinfer\.so\.999: cannot open"
    ):
        tensorrt_version("libnvinfer.so.999")
    with pytest.raises(MachineError, match=r"^the TensorRT library libc\.so\.6 does not tell its version \(.*getInferLibMajorVersion"):
        tensorrt_version("libc.so.6")


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("590.48.01\n", "590.48.01"),
        (
            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.183.01  Sun May 12 19:39:15 UTC 2024\nGCC version:  gcc 12.3.0\n",
            "535.183.01",
        ),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  575.57.08  Release Build\n", "575.57.08"),
    ],
)
def test_the_drivers_version_is_read_as_linux_tells_it(text: str, version: str, tmp_path: Path) -> None:
    (tmp_path / "version").write_text(text)
    assert driver_version((tmp_path / "missing", tmp_path / "version")) == version


def test_a_driver_that_tells_no_version_is_an_error_and_no_match(tmp_path: Path) -> None:
    (tmp_path / "version").write_text("no version here")
    with pytest.raises(MachineError, match=r"^the version of the NVIDIA driver stands in none of .*/version$"):
        driver_version((tmp_path / "version",))


def test_the_needed_library_is_read_from_the_elf_file() -> None:
    modules = Path(sysconfig.get_path("platstdlib")) / "lib-dynload"
    file = next(modules.glob("_socket*.so"), Path(sys.executable))
    assert needed_library(file, "libc") == "libc.so.6"
    assert needed_library(file, "libnvinfer") is None


def test_the_identity_of_a_plan_changes_with_every_field_and_setting(version: Path) -> None:
    base = fingerprint(version)
    identities = {identity(base, profile_for(8), "none", version_compatible=False)}
    identities |= {
        identity(replace(base, **{field: value}), profile_for(8), "none", version_compatible=False) for field, (value, _) in OTHERS.items()
    }
    identities |= {
        identity(base, profile_for(8, 2), "none", version_compatible=False),
        identity(base, profile_for(9), "none", version_compatible=False),
    }
    identities |= {
        identity(base, profile_for(8), "ampere-plus", version_compatible=False),
        identity(base, profile_for(8), "none", version_compatible=True),
    }
    assert len(identities) == 1 + len(OTHERS) + 4
    assert all(name.startswith(("sm90-", "sm89-")) for name in identities)


@pytest.mark.parametrize(("largest", "batches"), [(1, (1,)), (2, (1, 2)), (8, (1, 4, 8)), (64, (1, 32, 64))])
def test_a_profile_goes_from_one_to_the_cards_largest_batch(largest: int, batches: tuple[int, ...]) -> None:
    assert profile_for(largest).batches == batches


@pytest.mark.parametrize("optimum", [0, 9, -1])
def test_a_profile_is_fastest_inside_its_range(optimum: int) -> None:
    with pytest.raises(
        UsageError, match=rf"^a batch of {optimum} to be fastest at lies outside 1 to 8, which is what the model's card allows$"
    ):
        profile_for(8, optimum)


def test_a_record_is_read_as_it_was_written(version: Path) -> None:
    folder = record_plan(version)
    plan = read_plan(folder)
    check_plan(plan)
    assert plan.place == f"plans/1/{folder.name}"
    assert plan.record.fingerprint == fingerprint(version)
    assert plan.record.model_dump(mode="json", by_alias=True, exclude_unset=True) == json.loads((folder / "plan.json").read_text())


def test_the_card_that_a_client_reads_stays_in_the_configuration_of_a_plan(version: Path) -> None:
    from support.cards import tiny_card

    write_config(version.parent, tiny_card())
    on_auto(version)
    record_plan(version)
    assert parsed(chosen(version, here()).config).parameters["model_card"].string_value


# Hashes


def test_each_published_file_is_hashed_once_however_many_ask_for_it(
    version: Path, publish: Publish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_auto(publish(version.parents[1], version=2, seed=1))
    (version.parent / "config.pbtxt").write_text(config_text(replace(typed_config(version), policy=VersionPolicy("all"))), encoding="utf-8")
    for number in (1, 2):
        record_plan(version.parent / str(number))
    publish(version.parents[1], "other")
    hashed: list[Path] = []
    real = hashes.file_sha256

    def counted(file: Path) -> str:
        hashed.append(file)
        return real(file)

    monkeypatch.setattr(hashes, "file_sha256", counted)
    selection = select_models(version.parents[1])
    with_plans(selection.folders["tiny"], (1, 2), here(), selection.hashes, allow_code=False)
    assert {file.name for file in hashed} == {"model.onnx", "model.plan", "layers.json"}
    assert len(hashed) == len(set(hashed)) == 3 + 4
