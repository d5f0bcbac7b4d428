"""Lower precisions: the published file has the type that it claims, keeps its inputs and outputs, and is held to its own thresholds."""

import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from sightline.cli import run as sightline
from sightline.errors import DataError, GateRefused, UsageError
from sightline.host.cpu import integer_instructions
from sightline.repository.layout import version_numbers
from sightline.repository.read import check_files, read_version
from sightline_export.gate.structure import weight_shares
from sightline_export.gate.thresholds import FP16, INT8
from sightline_export.graph.calibration import Calibration, CalibrationSettings
from sightline_export.pipeline import export_candidate
from sightline_export.settings import ExportSettings
from sightline_export.sources.run import export_run
from sightline_training.run.run import load_run
from support.digits import Trained
from support.precisions import conversion, in_precision, judged, scaled, sure_images, surely_classified, verdict_on
from support.reports import as_json


@pytest.fixture(scope="module")
def exported(digits_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with mnist in FP32, FP16 and INT8. Only to be read."""
    repository = tmp_path_factory.mktemp("precisions") / "models"
    export_candidate(surely_classified(digits_run), repository, ExportSettings(precisions=("fp32", "fp16", "int8")))
    return repository


def int8_calibrated_with(folder: Path, count: int = 256) -> ExportSettings:
    return ExportSettings(precisions=("int8",), calibration=CalibrationSettings(folder=folder, count=count))


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_inputs_and_outputs_stay_and_most_weights_change_their_type(precision: str, trained: Trained) -> None:
    proto = onnx.load_from_string(in_precision(trained, precision))
    kinds = [tensor.type.tensor_type.elem_type for tensor in (*proto.graph.input, *proto.graph.output)]
    assert kinds == [TensorProto.UINT8, TensorProto.FLOAT]
    kind = {"fp16": "float16", "int8": "int8"}[precision]
    assert weight_shares(proto)[kind] > 0.9
    assert [opset.domain for opset in proto.opset_import] == [""]


def test_softmax_and_the_normalisation_of_pixels_stay_in_float32(trained: Trained) -> None:
    proto = onnx.shape_inference.infer_shapes(onnx.load_from_string(in_precision(trained, "fp16")))
    kinds = {value.name: value.type.tensor_type.elem_type for value in (*proto.graph.value_info, *proto.graph.output)}
    operations = Counter(node.op_type for node in proto.graph.node)
    assert operations["Softmax"] == 1
    before = True
    for node in proto.graph.node:
        before = before and node.op_type != "Gemm"
        if node.op_type in ("Softmax", "Mul", "Sub", "Div") and (before or node.op_type == "Softmax"):
            assert kinds[node.output[0]] == TensorProto.FLOAT, node.name


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_the_same_model_passes_in_its_precision_and_gives_the_same_bytes_twice(precision: str, trained: Trained) -> None:
    model = in_precision(trained, precision)
    verdict_on(model, trained.network, trained.card, sure_images(trained), precision).require("digits")
    assert in_precision(trained, precision) == model


@pytest.mark.parametrize(("precision", "factor"), [("fp16", 1.05), ("int8", 1.1)])
def test_scaled_weights_are_refused_in_every_precision(precision: str, factor: float, trained: Trained) -> None:
    verdict = judged(scaled(in_precision(trained, precision), trained, factor), trained, precision)
    with pytest.raises(GateRefused, match=rf"^digits was refused by the gate \({precision}, 360 images\) and not published: "):
        verdict.require("digits")


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_a_file_that_only_claims_its_precision_is_refused(precision: str, trained: Trained) -> None:
    verdict = judged(trained.model, trained, precision)
    kind = {"fp16": "float16", "int8": "int8"}[precision]
    assert [check.name for check in verdict.failed] == [f"share of the layers' weights in {kind}"]


def test_integers_that_cost_accuracy_are_refused(trained: Trained) -> None:
    dark = Calibration("nothing but black", np.zeros_like(trained.pixels[:20]), trained.pixels[100:200])
    quantised = conversion(trained, "int8", dark)
    tried = quantised.notes["tried"]
    assert isinstance(tried, list)
    assert [trial["way"] for trial in tried] == ["minmax", "percentile"], "two layers are both ends: nothing else is left to try"
    with pytest.raises(GateRefused, match=r"accuracy lost against torch is 0\.\d+ \(allowed: at most 0\.002\)"):
        judged(quantised.model, trained, "int8").require("digits")


def test_integers_need_images(trained: Trained) -> None:
    with pytest.raises(ValueError, match="calibrated"):
        conversion(trained, "int8", None)


def test_precisions_are_versions_of_one_model_each_with_its_figures(exported: Path) -> None:
    model = exported / "mnist"
    assert version_numbers(model) == [1, 2, 3]
    reports = [as_json(read_version(model / str(number)).report) for number in (1, 2, 3)]
    assert [report["precision"] for report in reports] == ["fp32", "fp16", "int8"]
    assert [report["gate"]["precision"] for report in reports] == ["fp32", "fp16", "int8"]
    assert reports[0]["conversion"] is reports[0]["against_fp32"] is None
    fp32 = read_version(model / "1").report.files["model.onnx"]
    for number, report in zip((2, 3), reports[1:], strict=True):
        check_files(read_version(model / str(number)))
        assert report["conversion"]["from_sha256"] == fp32
        assert report["against_fp32"]["bytes"] == reports[0]["model_bytes"]
        for row in report["against_fp32"]["speed"]:
            assert set(row["pictures_per_second"]) == {"fp32", report["precision"]}
            assert row["ratio"][report["precision"]] > 0
    assert reports[1]["model_bytes"] < 0.55 * reports[0]["model_bytes"]
    assert reports[2]["model_bytes"] < 0.3 * reports[0]["model_bytes"]
    assert reports[2]["conversion"]["integer_instructions"] == list(integer_instructions())
    assert reports[2]["conversion"]["calibration"]["source"] == "training pictures of digits"
    golden = json.loads((model / "3" / "golden" / "golden.json").read_text())
    assert golden["tolerance"] == INT8.golden_tolerance > FP16.golden_tolerance


def test_exporting_the_same_precision_again_publishes_nothing(exported: Path, digits_run: Path, tmp_path: Path) -> None:
    repository = shutil.copytree(exported, tmp_path / "models")
    candidate, int8 = surely_classified(digits_run), ExportSettings(precisions=("int8",))
    assert export_candidate(candidate, repository, int8)[0].already
    assert not export_candidate(candidate, repository, replace(int8, calibration=CalibrationSettings(count=100)))[0].already
    assert not export_candidate(candidate, repository, ExportSettings(precisions=("fp16",)))[0].already
    assert version_numbers(repository / "mnist") == [1, 2, 3, 4, 5]


def test_the_command_publishes_several_precisions_and_shows_size_and_speed(
    digits_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["export", str(digits_run), "--repository", str(tmp_path), "--images", "20"]
    sightline([*arguments, "--precision", "fp32", "--precision", "int8"])
    printed = capsys.readouterr()
    assert "mnist version 1" in printed.out
    assert "mnist version 2" in printed.out
    assert "% of FP32's " in printed.out
    assert " times FP32 in batches of 1 (" in printed.out
    assert printed.err.count("exporting mnist to ONNX") == 1


def test_a_folder_of_images_calibrates_too_and_what_is_no_image_is_passed_over(digits_run: Path, tmp_path: Path) -> None:
    images = tmp_path / "pictures"
    images.mkdir()
    (images / "notes.txt").write_text("no image")
    training = load_run(digits_run).images("train")
    for index in range(600):
        training.open(index).save(images / f"{index}.png")
    settings = ExportSettings(precisions=("int8",), calibration=CalibrationSettings(folder=images, count=300), images=100)
    report = as_json(export_run(digits_run, tmp_path / "models", settings)[0].published.report)
    assert report["conversion"]["calibration_pictures"] == 300
    assert report["conversion"]["calibration"]["source"] == "600 pictures of a folder"


def test_too_few_images_to_calibrate_with_are_found_out_by_the_gate(exported: Path, digits_run: Path, tmp_path: Path) -> None:
    few = exported / "mnist" / "1" / "golden"
    with pytest.raises(
        GateRefused, match=r"mnist was refused by the gate \(int8, 360 images\) .*mean \|Δ ln p\| is 0\.\d+ \(allowed: at most"
    ):
        export_run(digits_run, tmp_path / "models", int8_calibrated_with(few, count=3))
    assert not (tmp_path / "models" / "mnist").exists()


@pytest.mark.parametrize("there", [0, 1])
def test_a_folder_with_too_few_images_is_refused(there: int, exported: Path, digits_run: Path, tmp_path: Path) -> None:
    images = tmp_path / "pictures"
    images.mkdir()
    for file in sorted((exported / "mnist" / "1" / "golden").glob("*.png"))[:there]:
        shutil.copy(file, images)
    with pytest.raises(DataError, match=rf"pictures holds {there or 'no'} readable image"):
        export_run(digits_run, tmp_path / "models", int8_calibrated_with(images))
    assert not (tmp_path / "models" / "mnist").exists()


def test_a_folder_that_is_not_there_is_named(digits_run: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^there is no folder .*nowhere of images to calibrate with$"):
        sightline(
            ["export", str(digits_run), "--repository", str(tmp_path), "--precision", "int8", "--calibrate-with", str(tmp_path / "nowhere")]
        )


def test_no_image_to_calibrate_with_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="at least one image to be calibrated with, not 0"):
        CalibrationSettings(count=0)
