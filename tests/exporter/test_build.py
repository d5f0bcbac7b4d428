"""TensorRT itself: plans that are built, inspected and asked on a real GPU. Not yet run by us; see docs/tensorrt.md."""

import json
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from sightline.errors import BuildError, MachineError
from sightline.host.gpu import machine
from sightline.repository.read import read_version
from sightline.repository.tensorrt_plan import Hardware, check_plan, profile_for
from sightline_export.engine.build import LoadedPlan, build, load, tensorrt_version
from sightline_export.engine.finalize import finalize, fingerprint_here
from sightline_export.engine.inspector import check_inspected, inspected_precisions
from sightline_export.graph.runtimes import in_onnx_runtime
from sightline_export.precisions import PRECISIONS
from sightline_export.settings import ExportSettings, FinalizeSettings, ImageSelection, PlanSettings
from sightline_export.sources.run import export_run, images_of_run
from support.digits import Trained
from support.precisions import in_precision

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module", autouse=True)
def on_a_gpu_with_tensorrt() -> None:
    """Skipped elsewhere, and the summary says why."""
    pytest.importorskip(
        "tensorrt", reason="TensorRT's Python module is not installed: run these in the image of docker/Dockerfile.finalize"
    )
    try:
        machine()
    except MachineError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def plan(trained: Trained) -> bytes:
    return build(trained.model, trained.card, profile_for(trained.card.max_batch_size)).plan


@pytest.fixture(scope="module")
def loaded(plan: bytes, trained: Trained) -> LoadedPlan:
    return load(plan, trained.card)


def test_a_plan_gives_the_files_answers_in_every_batch_of_its_profile(loaded: LoadedPlan, trained: Trained) -> None:
    ask = in_onnx_runtime(trained.model, trained.card)
    for size in (1, 2, 3, 7, 16):
        answers = loaded.predict(trained.pixels[:size])
        assert (answers.dtype, answers.shape) == (np.dtype(np.float32), (size, 10))
        assert np.abs(answers - ask(trained.pixels[:size])).max() < 1e-5


def test_a_batch_beyond_the_profile_is_refused(loaded: LoadedPlan, trained: Trained) -> None:
    with pytest.raises(BuildError, match=r"^the plan of digits does not answer a batch of 17: "):
        loaded.predict(trained.pixels[:17])
    assert loaded.predict(trained.pixels[:16]).shape == (16, 10)


def test_fp32_is_built_in_fp32_and_without_tf32(loaded: LoadedPlan) -> None:
    shares = inspected_precisions(loaded.layers)
    assert shares == {"float32": 1.0}
    assert check_inspected(PRECISIONS["fp32"].plan_layers, shares).passed
    assert json.loads(loaded.layers)["Layers"]


def test_fp16_is_built_in_fp16_because_the_file_says_so(trained: Trained) -> None:
    model = in_precision(trained, "fp16")
    on_gpu = load(build(model, trained.card, profile_for(16)).plan, trained.card)
    assert check_inspected(PRECISIONS["fp16"].plan_layers, inspected_precisions(on_gpu.layers)).passed
    assert np.abs(on_gpu.predict(trained.pixels[:16]) - in_onnx_runtime(model, trained.card)(trained.pixels[:16])).max() < 2e-2


def test_an_fp32_plan_that_is_called_fp16_is_refused(loaded: LoadedPlan) -> None:
    assert not check_inspected(PRECISIONS["fp16"].plan_layers, inspected_precisions(loaded.layers)).passed


def test_tensorrt_refuses_unsigned_integers_as_finalize_says_it_does(trained: Trained) -> None:
    with pytest.raises(BuildError, match=r"^TensorRT cannot (read the ONNX file of|build) digits"):
        build(in_precision(trained, "int8"), trained.card, profile_for(16))


def test_a_damaged_plan_is_refused_with_tensorrts_words(plan: bytes, trained: Trained) -> None:
    with pytest.raises(BuildError, match=r"^TensorRT does not load the plan of digits: (?!it does not say why)"):
        load(plan[: len(plan) // 2], trained.card)


def test_a_plan_whose_tensors_are_not_the_cards_is_refused(plan: bytes, trained: Trained) -> None:
    with pytest.raises(BuildError, match=r"^the plan of digits has the tensors "):
        load(plan, trained.card.model_copy(update={"output": "scores"}))


def test_the_timing_cache_is_taken_again_and_a_strange_one_is_left_aside(trained: Trained) -> None:
    notices: list[str] = []
    first = build(trained.model, trained.card, profile_for(16), notify=notices.append)
    assert first.timing_cache
    build(trained.model, trained.card, profile_for(16), timing_cache=first.timing_cache, notify=notices.append)
    assert notices == []
    build(trained.model, trained.card, profile_for(16), timing_cache=b"no cache" * 100, notify=notices.append)
    assert notices == ["the timing cache is of another TensorRT or GPU: a new one is begun"]


def test_a_version_compatible_plan_brings_code_and_is_loaded_only_when_that_is_admitted(trained: Trained) -> None:
    plan = build(trained.model, trained.card, profile_for(16), PlanSettings(version_compatible=True)).plan
    with pytest.raises(BuildError, match=r"^TensorRT does not load the plan of digits: "):
        load(plan, trained.card)
    assert load(plan, trained.card, code_allowed=True).predict(trained.pixels[:1]).shape == (1, 10)


@pytest.mark.parametrize("level", ["ampere-plus", "same-compute-capability"])
def test_compatible_plans_answer_on_the_gpu_that_built_them(level: Hardware, trained: Trained) -> None:
    plan = build(trained.model, trained.card, profile_for(16), PlanSettings(hardware=level)).plan
    answers = load(plan, trained.card).predict(trained.pixels[:16])
    assert np.abs(answers - in_onnx_runtime(trained.model, trained.card)(trained.pixels[:16])).max() < 1e-5


def test_a_version_is_finalized_gated_and_published_once(digits_run: Path, tmp_path: Path) -> None:
    repository, timing = tmp_path / "models", FinalizeSettings(timing_cache=tmp_path / "timing")
    for precision in ("fp32", "fp16"):
        export_run(digits_run, repository, ExportSettings(precisions=(precision,)))
        done = finalize(repository, "mnist", settings=timing, images=partial(images_of_run, digits_run, ImageSelection()))
        assert done.already is False
        check_plan(done.plan)
        record, version = done.plan.record, read_version(repository / "mnist" / str(done.plan.record.version))
        assert record.precision == precision
        assert record.fingerprint == fingerprint_here(version.report.files["model.onnx"], tensorrt_version())
        assert record.gate.passed is True
        assert record.gate.images == 360
        again = finalize(repository, "mnist", settings=FinalizeSettings(timing_cache=tmp_path / "timing"))
        assert (again.already, again.plan) == (True, done.plan)
    assert (tmp_path / "timing").stat().st_size > 0


def test_fp16_that_is_fp32_inside_is_refused_and_nothing_is_published(digits_run: Path, tmp_path: Path) -> None:
    repository = tmp_path / "models"
    export_run(digits_run, repository)
    report = repository / "mnist" / "1" / "report.json"
    content = json.loads(report.read_text()) | {"precision": "fp16"}
    report.unlink()
    report.write_text(json.dumps(content))
    with pytest.raises(BuildError, match=r"in another precision than fp16: share of the computing layers in float16 is 0"):
        finalize(repository, "mnist", settings=FinalizeSettings(timing_cache=tmp_path / "timing"))
    assert not (repository / "mnist" / "plans").exists()


@pytest.mark.triton
def test_triton_answers_by_the_plan(digits_run: Path, tmp_path: Path) -> None:
    from sightline.classifier import Classifier
    from sightline.repository.golden import read_golden
    from sightline_serving.server import start_server
    from sightline_serving.settings import FREE_PORTS

    triton = shutil.which("tritonserver")
    if triton is None or not (Path(triton).resolve().parents[1] / "backends" / "tensorrt").is_dir():
        pytest.skip("there is no tritonserver with a TensorRT backend on PATH")
    repository = tmp_path / "models"
    version = export_run(digits_run, repository)[0].published
    finalize(repository, "mnist", settings=FinalizeSettings(timing_cache=tmp_path / "timing"))
    with start_server(repository, FREE_PORTS) as server:
        assert server.notices == ()
        with Classifier("mnist", server.grpc_url) as mnist:
            golden = read_golden(read_version(version.folder), mnist.card)
            assert np.abs(mnist.probabilities_of_pixels(golden.pixels) - golden.probabilities).max() <= golden.tolerance
