"""`sightline finalize` up to TensorRT's door, and what is done with what comes out of it. Behind the door is test_tensorrt_engine.py.

Where two engines are compared, the second one here is ONNX Runtime too, with another file: what is held to what is the same.
"""

import importlib.util
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest

from sightline.errors import BuildError, ContractError, GateRefused, MachineError, MissingExtra, RepositoryError, UsageError
from sightline.repository.golden import read_golden
from sightline.repository.publish import PublishedVersion
from sightline.repository.publish_plan import check_writable, publish_plan
from sightline.repository.read import check_files, read_version
from sightline.repository.tensorrt_plan import Fingerprint, check_plan, profile_for, read_plan
from sightline_export.commands.finalize import finalize as command
from sightline_export.engine.build import LoadedPlan
from sightline_export.engine.finalize import check_quantisation, demand_precision, finalize, fingerprint_here, judge, precision_of
from sightline_export.engine.timing_cache import default_timing_cache, read_cache, write_cache
from sightline_export.gate.checks import Verdict
from sightline_export.gate.compare import ComparedImages
from sightline_export.graph.runtimes import in_onnx_runtime
from sightline_export.pipeline import export_candidate
from sightline_export.precisions import PRECISIONS
from sightline_export.settings import ExportSettings, FinalizeSettings
from support.digits import Trained
from support.engine_layers import new
from support.plans import GATE
from support.precisions import scaled, surely_classified

NO_TENSORRT = pytest.mark.skipif(importlib.util.find_spec("tensorrt") is not None, reason="TensorRT is installed")
HERE = Fingerprint("11.4.0.106", "13.2", "590.48.01", "NVIDIA H200", "9.0", "Linux x86_64", "ab" * 32)


@pytest.fixture(scope="module")
def all_precisions(digits_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with mnist in FP32, INT8 and FP16, in this order. Only to be read."""
    repository = tmp_path_factory.mktemp("finalize") / "models"
    export_candidate(surely_classified(digits_run), repository, ExportSettings(precisions=("fp32", "int8", "fp16"), images=100))
    return repository


@pytest.fixture
def repository(all_precisions: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(all_precisions, tmp_path / "models"))


@pytest.fixture
def version(repository: Path) -> Path:
    return repository / "mnist" / "1"


def record(**changed: object) -> dict[str, object]:
    return {
        "created": "2026-11-21T12:00:00+00:00",
        "precision": "fp32",
        "fingerprint": asdict(HERE),
        "profile": asdict(profile_for(64)),
        "hardware_compatibility": "none",
        "version_compatible": False,
        "tf32": False,
        "build_seconds": 1.5,
        "realised": {"float32": 1.0},
        "gate": GATE,
        **changed,
    }


# Up to TensorRT's door


@NO_TENSORRT
@pytest.mark.parametrize("options", [[], ["--version", "1"], ["--opt-batch", "2", "--hardware-compatibility", "ampere-plus"]])
def test_without_tensorrt_it_says_where_to_run(options: list[str], repository: Path) -> None:
    with pytest.raises(MissingExtra) as missing:
        command.main(["mnist", "--repository", str(repository), *options], standalone_mode=False)
    assert str(missing.value) == (
        "`sightline finalize` needs TensorRT's Python module, which is not installed in this Python: run it in the image of "
        "docker/Dockerfile.finalize, or install the tensorrt wheels of the very version that Triton has"
    )
    assert not (repository / "mnist" / "plans").exists()


@pytest.mark.skipif(os.path.exists("/dev/nvidiactl"), reason="this machine has an NVIDIA driver")
def test_without_a_gpu_it_says_where_to_run() -> None:
    with pytest.raises(MachineError) as refused:
        fingerprint_here("ab" * 32, "11.4.0.106")
    assert str(refused.value) == (
        "there is no NVIDIA driver on this machine (libcuda.so.1 is missing), and a plan is built on the GPU that it is for: run "
        "`sightline finalize` on the machine that serves, in the image of docker/Dockerfile.finalize"
    )


def test_an_unknown_version_or_model_is_named_with_those_that_there_are(repository: Path) -> None:
    with pytest.raises(RepositoryError, match=r"^mnist in .* has no version 7: there is 1, 2, 3$"):
        finalize(repository, "mnist", 7)
    with pytest.raises(RepositoryError, match=r"^there is no model fruit in .*: it has mnist$"):
        finalize(repository, "fruit")


def test_a_file_that_was_changed_after_it_was_published_is_refused(version: Path) -> None:
    model = version / "model.onnx"
    model.chmod(0o644)
    model.write_bytes(model.read_bytes() + b"\0")
    with pytest.raises(
        RepositoryError, match=r"^version 1 of model mnist in .* is damaged: model\.onnx was changed after it was published"
    ):
        finalize(version.parents[1], "mnist", 1)


def test_int8_for_processors_is_refused_since_tensorrt_takes_signed_integers_only(repository: Path) -> None:
    with pytest.raises(RepositoryError) as refused:
        finalize(repository, "mnist", 2)
    assert str(refused.value) == (
        "version 2 of mnist is INT8 with activations that are unsigned, as ONNX Runtime on processors wants them; TensorRT takes signed "
        "ones around 0 only. Finalize a version in FP16 instead"
    )


def quantised(zero_point: int, kind: int) -> onnx.ModelProto:
    helper = onnx.helper
    graph = helper.make_graph(
        [
            helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
            helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"]),
        ],
        "quantised",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])],
        [helper.make_tensor("scale", onnx.TensorProto.FLOAT, [], [0.5]), helper.make_tensor("zero", kind, [], [zero_point])],
    )
    return helper.make_model(graph)


def test_signed_integers_around_zero_are_what_tensorrt_takes(version: Path) -> None:
    published = read_version(version)
    check_quantisation(quantised(0, onnx.TensorProto.INT8), published)
    with pytest.raises(RepositoryError, match="activations that are not around 0"):
        check_quantisation(quantised(3, onnx.TensorProto.INT8), published)
    with pytest.raises(RepositoryError, match="activations that are unsigned"):
        check_quantisation(quantised(0, onnx.TensorProto.UINT8), published)


def test_a_batch_that_the_card_does_not_allow_is_refused(repository: Path) -> None:
    with pytest.raises(
        UsageError, match=r"^a batch of 100000 to be fastest at lies outside 1 to \d+, which is what the model's card allows$"
    ):
        finalize(repository, "mnist", settings=FinalizeSettings(opt_batch=100_000))


def test_a_report_without_a_known_precision_is_refused(version: Path) -> None:
    report = version / "report.json"
    report.chmod(0o644)
    # As an earlier program wrote it, without the hash of itself.
    content = {key: value for key, value in json.loads(report.read_text()).items() if key not in ("shared", "sha256")}
    report.write_text(json.dumps({**content, "precision": "fp4"}))
    with pytest.raises(RepositoryError, match=r"report\.json names no precision that is known here \('fp4'\): export the model again$"):
        finalize(version.parents[1], "mnist", 1)
    assert precision_of(read_version(version.parent / "3")).name == "fp16"


def test_images_of_no_run_are_refused(repository: Path) -> None:
    with pytest.raises(UsageError, match=r"^--data and --images say which images of a run: name the run with --run$"):
        command.main(["mnist", "--repository", str(repository), "--images", "3"], standalone_mode=False)


# The gate


def held(
    trained: Trained, exported: PublishedVersion, other: bytes, layers: str, precision: str = "fp32", images: int = 100
) -> tuple[Verdict, dict[str, float]]:
    """The answers of the file `other` in the plan's place."""
    card = trained.card
    model = (exported.folder / "model.onnx").read_bytes()
    golden = read_golden(read_version(exported.folder), card)
    plan = LoadedPlan(in_onnx_runtime(other, card, 1), layers)
    compared = ComparedImages(trained.pixels[:images], trained.labels[:images])
    return judge(plan, model, card, PRECISIONS[precision], golden, compared)


@pytest.fixture(scope="module")
def exported(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> PublishedVersion:
    """The network of the digits as a version with golden images. Only to be read."""
    from PIL import Image

    from sightline.repository.card_config import config_for
    from sightline.repository.golden import golden_files
    from sightline.repository.instances import InstanceSettings
    from sightline.repository.publish import publish
    from sightline.repository.report import VersionReport
    from sightline_export.graph.runtimes import in_torch

    golden = golden_files(
        trained.card, lambda at: Image.fromarray(trained.pixels[at, :, :, 0]), trained.labels, in_torch(trained.network), 1e-4
    )
    folder = tmp_path_factory.mktemp("judged") / "models"
    config = config_for(trained.card, InstanceSettings(1, 1))
    return publish(folder, trained.card, config, {"model.onnx": trained.model, **golden}, VersionReport(precision="fp32"))


def test_answers_of_the_same_network_pass_with_every_check_named(trained: Trained, exported: PublishedVersion) -> None:
    verdict, shares = held(trained, exported, trained.model, new("Float", "Float"))
    verdict.require("the plan")
    assert shares == {"float32": 1.0}
    names = [check.name for check in verdict.checks]
    assert names[0] == "share of the computing layers in float32"
    assert {"the plan's answers", "max |Δp|", "top-1 agreement", "accuracy", "accuracy of ONNX Runtime", "batches of 7: max |Δp|"} <= set(
        names
    )
    assert names[-1] == "golden pictures: max |Δp|"
    assert not [name for name in names if "torch" in name]
    assert verdict.images == 100


def test_without_images_of_a_run_the_golden_ones_are_compared(trained: Trained, exported: PublishedVersion) -> None:
    golden = read_golden(read_version(exported.folder), trained.card)
    assert golden.pixels.shape == (8, 8, 8, 1)
    assert golden.labels.tolist() == list(range(8))
    verdict, _ = judge(
        LoadedPlan(in_onnx_runtime(trained.model, trained.card), new("Float")), trained.model, trained.card, PRECISIONS["fp32"], golden
    )
    verdict.require("the plan")
    assert verdict.images == 8


def test_another_network_is_refused_with_what_differs(trained: Trained, exported: PublishedVersion) -> None:
    verdict, _ = held(trained, exported, scaled(trained.model, trained, 1.05), new("Float"))
    with pytest.raises(GateRefused) as refused:
        verdict.require("the TensorRT plan of digits version 1")
    message = str(refused.value)
    assert message.startswith(
        "the TensorRT plan of digits version 1 was refused by the gate (fp32, 100 images) and not published: max |Δp| is "
    )
    assert "golden pictures: max |Δp| is 0." in message
    assert "(allowed: at most 0.0001)" in message


def test_a_plan_that_is_called_fp16_and_computes_in_fp32_is_refused_though_its_answers_are_right(
    trained: Trained, exported: PublishedVersion
) -> None:
    verdict, shares = held(trained, exported, trained.model, new("Float", "Float"), "fp16")
    assert shares == {"float32": 1.0}
    assert [str(check) for check in verdict.failed] == ["share of the computing layers in float16 is 0 (allowed: at least 0.9)"]
    with pytest.raises(BuildError) as refused:
        demand_precision(verdict, "digits version 1")
    assert str(refused.value) == (
        "TensorRT built digits version 1 in another precision than fp16: share of the computing layers in float16 is 0 "
        "(allowed: at least 0.9)"
    )


def test_an_engine_that_fails_or_answers_nonsense_is_refused_and_not_an_accident(trained: Trained, exported: PublishedVersion) -> None:
    golden = read_golden(read_version(exported.folder), trained.card)

    def fails(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        raise RuntimeError("out of memory")

    def nan(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        return np.full((len(pixels), 10), np.nan, np.float32)

    for answer, sentence in ((fails, "the plan's answers is out of memory"), (nan, "pictures with NaN or infinity is 8")):
        verdict, _ = judge(LoadedPlan(answer, new("Float")), trained.model, trained.card, PRECISIONS["fp32"], golden)
        assert sentence in [str(check).partition(" (allowed")[0] for check in verdict.failed]
        assert "golden pictures: max |Δp|" in [check.name for check in verdict.failed]


@pytest.mark.parametrize(
    "change",
    [
        lambda golden: golden | {"schema": 9},
        lambda golden: golden | {"card_sha256": "ab" * 32},
        lambda golden: golden | {"pictures": []},
        lambda golden: golden | {"pictures": [golden["pictures"][0] | {"file": "../../model.onnx"}]},
        lambda golden: golden | {"pictures": [golden["pictures"][0] | {"label": "eleven"}]},
        lambda golden: golden | {"pictures": [golden["pictures"][0] | {"probabilities": [1.0]}]},
        lambda golden: {"pictures": golden["pictures"]},
        lambda golden: [],
    ],
)
def test_golden_images_that_are_not_the_models_are_refused(
    change: Callable[[dict[str, Any]], object], exported: PublishedVersion, trained: Trained, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(exported.folder, tmp_path / "1"))
    file = folder / "golden" / "golden.json"
    file.chmod(0o644)
    file.write_text(json.dumps(change(json.loads(file.read_text()))))
    with pytest.raises(RepositoryError, match=r"golden\.json .*: export the model again$"):
        read_golden(read_version(folder), trained.card)


# Publishing


def test_a_plan_is_published_beside_its_version_and_the_version_stays(version: Path) -> None:
    before = {file: file.read_bytes() for file in version.rglob("*") if file.is_file()}
    plan = publish_plan(read_version(version), b"the plan", new("Float"), record())
    check_plan(plan)
    assert plan.folder.parent == version.parent / "plans" / "1"
    assert plan.folder.name.startswith("sm90-")
    assert sorted(path.name for path in plan.folder.iterdir()) == ["layers.json", "model.plan", "plan.json"]
    assert (plan.folder / "model.plan").read_bytes() == b"the plan"
    assert read_plan(plan.folder) == plan
    check_files(read_version(version))
    assert {file: file.read_bytes() for file in version.rglob("*") if file.is_file()} == before
    assert not (version.parent / ".sightline.staging").exists()


def test_a_plan_of_the_same_identity_is_replaced_and_others_stay(version: Path) -> None:
    first = publish_plan(read_version(version), b"first", "{}", record())
    other = publish_plan(read_version(version), b"other", "{}", record(fingerprint=asdict(HERE) | {"driver": "1.2"}))
    second = publish_plan(read_version(version), b"second", "{}", record())
    assert (first.folder == second.folder, other.folder == second.folder) == (True, False)
    assert (second.folder / "model.plan").read_bytes() == b"second"
    assert (other.folder / "model.plan").read_bytes() == b"other"
    assert len(list((version.parent / "plans" / "1").iterdir())) == 2


def test_a_place_that_cannot_be_written_is_named_before_and_after_the_build(version: Path) -> None:
    (version.parent / "plans").write_text("a file")
    with pytest.raises(RepositoryError, match=r"^.*/mnist/plans/1: Not a directory\. Nothing was published in .*/models$"):
        publish_plan(read_version(version), b"plan", "{}", record())
    (version.parents[1] / ".sightline.lock").unlink()
    (version.parents[1] / ".sightline.lock").mkdir()
    with pytest.raises(RepositoryError, match=r"^.*/\.sightline\.lock: Is a directory\. Nothing was published in .*/models$"):
        check_writable(read_version(version))


def test_what_a_killed_build_left_is_cleared_by_the_next_one(version: Path) -> None:
    leftover = version.parent / ".sightline.staging" / "sm90-0123"
    leftover.mkdir(parents=True)
    (leftover / "model.plan").write_bytes(b"half of a pl")
    check_writable(read_version(version))
    assert not leftover.parent.exists()


def test_what_is_published_is_what_the_server_chooses_and_a_changed_file_is_not(repository: Path) -> None:
    from sightline.repository.hashes import FileHashes
    from sightline.repository.read import read_folder
    from sightline_serving.selection.plan_selection import with_plans
    from support.plans import here

    version = read_version(repository / "mnist" / "3")
    fingerprint = asdict(HERE) | {"onnx_sha256": version.report.files["model.onnx"]}
    plan = publish_plan(version, b"plan", "{}", record(fingerprint=fingerprint, precision="fp16", profile=asdict(profile_for(1024))))
    model = read_folder(repository / "mnist")
    replacement = with_plans(model, (3,), here(), FileHashes(), allow_code=False)
    assert replacement.files == {3: {"model.plan": plan.folder / "model.plan"}}
    assert replacement.config.backend == "tensorrt"
    (plan.folder / "model.plan").chmod(0o644)
    (plan.folder / "model.plan").write_bytes(b"evil")
    with pytest.raises(ContractError, match=r"model\.plan was changed after it was built"):
        with_plans(model, (3,), here(), FileHashes(), allow_code=False)


# The timing cache


def test_the_timing_cache_is_kept_and_one_of_its_own_for_each_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGHTLINE_CACHE", str(tmp_path))
    file = default_timing_cache(HERE)
    assert file.parent == tmp_path / "tensorrt"
    assert file.name.startswith("timing-11.4.0.106-")
    assert read_cache(file) == b""
    notices: list[str] = []
    write_cache(file, b"measured", notices.append)
    assert (read_cache(file), notices, [path.name for path in file.parent.iterdir()]) == (b"measured", [], [file.name])


def test_a_timing_cache_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match=r"^the timing cache .* cannot be read: Is a directory\. Delete it, or name another$"):
        read_cache(tmp_path)
    huge = tmp_path / "huge"
    with huge.open("wb") as file:
        file.truncate(300 * 1024 * 1024)
    with pytest.raises(MachineError, match=r"/huge cannot be read: larger than 256 MiB, the most .* Delete it, or name another$"):
        read_cache(huge)
    notices: list[str] = []
    write_cache(huge / "below", b"measured", notices.append)
    assert notices == [f"the timing cache {huge / 'below'} was not written: File exists"]
