"""A run folder is read back exactly, or refused with the file and the tensor that is wrong."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from sightline.errors import ContractError, DataError
from sightline_training.run.report import MAX_REPORT_BYTES, write_report
from sightline_training.run.run import Run, load_run


@pytest.fixture
def folder(digits_folder: Path, tmp_path: Path) -> Path:
    """A copy that may be damaged."""
    copy = tmp_path / "run"
    shutil.copytree(digits_folder, copy, ignore=shutil.ignore_patterns("checkpoints"))
    return copy


def _edit_report(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    report = json.loads((folder / "report.json").read_text())
    change(report)
    (folder / "report.json").write_text(json.dumps(report))


def _edit_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    """Change tensors and make the report fit them, so that only the tensors are wrong."""
    path = folder / "weights.safetensors"
    weights = safetensors.torch.load_file(path)
    change(weights)
    path.write_bytes(safetensors.torch.save(weights))
    _edit_report(folder, lambda report: report.update(weights_sha256=hashlib.sha256(path.read_bytes()).hexdigest()))


def test_a_missing_folder_is_named_with_the_command_that_makes_one(tmp_path: Path) -> None:
    with pytest.raises(DataError) as refused:
        load_run(tmp_path / "none")
    assert str(refused.value) == f"there is no run folder {tmp_path / 'none'}. `sightline train` makes one."


@pytest.mark.parametrize("name", ["weights.safetensors", "card.json"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(DataError) as refused:
        load_run(folder)
    assert str(refused.value) == f"{folder / name}: cannot be read: No such file or directory. Train it anew."


def test_weights_of_another_run_are_refused(folder: Path) -> None:
    path = folder / "weights.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError) as refused:
        load_run(folder)
    assert str(refused.value) == f"{path}: the weights are not those that report.json describes. Train it anew."


def test_weights_changed_after_loading_are_refused_too(folder: Path) -> None:
    run = load_run(folder)
    (folder / "weights.safetensors").write_bytes(b"")
    with pytest.raises(DataError, match=r"the weights are not those that report\.json describes"):
        run.network()


def test_a_tensor_of_the_wrong_shape_is_named(folder: Path) -> None:
    _edit_weights(folder, lambda weights: weights.update({"body.2.weight": torch.zeros(512, 783)}))
    with pytest.raises(DataError) as refused:
        load_run(folder).network()
    shapes = "has the shape [512, 783]; the network needs [512, 784]."
    assert str(refused.value) == f"{folder / 'weights.safetensors'}: the tensor body.2.weight {shapes}"


def test_a_missing_tensor_is_named(folder: Path) -> None:
    _edit_weights(folder, lambda weights: weights.pop("body.10.bias"))
    with pytest.raises(DataError) as refused:
        load_run(folder).network()
    assert str(refused.value) == f"{folder / 'weights.safetensors'}: the tensor body.10.bias is missing."


def test_a_tensor_too_many_is_named(folder: Path) -> None:
    _edit_weights(folder, lambda weights: weights.update({"extra": torch.zeros(1)}))
    with pytest.raises(DataError) as refused:
        load_run(folder).network()
    assert str(refused.value) == f"{folder / 'weights.safetensors'}: the tensor 'extra' belongs to another network."


def test_a_tensor_with_a_nan_is_named(folder: Path) -> None:
    _edit_weights(folder, lambda weights: weights["body.10.bias"].__setitem__(3, float("nan")))
    with pytest.raises(DataError) as refused:
        load_run(folder).network()
    assert str(refused.value) == f"{folder / 'weights.safetensors'}: the tensor body.10.bias holds values that are no finite numbers."


def test_a_pickle_in_place_of_the_weights_is_refused(folder: Path) -> None:
    path = folder / "weights.safetensors"
    torch.save({"body": torch.zeros(3)}, path)
    _edit_report(folder, lambda report: report.update(weights_sha256=hashlib.sha256(path.read_bytes()).hexdigest()))
    with pytest.raises(DataError, match="no valid safetensors file"):
        load_run(folder).network()


def test_a_changed_mean_in_the_card_is_refused(folder: Path) -> None:
    path = folder / "card.json"
    text = path.read_text()
    path.write_text(text.replace("0.1307", "0.1317"))
    assert path.read_text() != text
    with pytest.raises(ContractError, match="sha256"):
        load_run(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda report: report.update(recipe="../evil"), r"the recipe '../evil' is not known here. Known: "),
        (lambda report: report.update(recipe=["mnist"]), r"recipe: Input should be a valid string"),
        (lambda report: report.pop("dataset"), r"dataset: Field required\."),
        (lambda report: report["dataset"].update(name={}), r"dataset.name: Input should be a valid string"),
        (lambda report: report["dataset"].update(name="minst"), r"dataset.name is 'minst', which is none of .*digits, .*mnist"),
        (lambda report: report["dataset"]["splits"]["valid"].pop("fingerprint"), r"dataset.splits.valid.fingerprint: Field required"),
        (lambda report: report["dataset"]["splits"].pop("test"), r"dataset.splits or accuracy does not hold judged_on, test\."),
        (lambda report: report["accuracy"].pop("test"), r"dataset.splits or accuracy does not hold judged_on, test\."),
        (lambda report: report.update(judged_on="exam"), r"judged_on: Input should be 'train', 'valid' or 'test'"),
        (
            lambda report: report.update(backbone={"name": "vgg16", "part": "network", "source": "random", "sha256": "0"}),
            r"backbone names no network that the recipe mnist can",
        ),
        (
            lambda report: report.update(backbone={"name": "../evil", "part": "network", "source": "random", "sha256": "0"}),
            r"backbone names no network that the recipe",
        ),
        (lambda report: report.update(weights_sha256=3), r"weights_sha256: Input should be a valid string"),
        (lambda report: report.pop("card_sha256"), r"card_sha256: Field required"),
    ],
)
def test_a_report_without_what_is_needed_is_refused(folder: Path, change: Callable[[dict[str, Any]], object], message: str) -> None:
    _edit_report(folder, change)
    with pytest.raises(DataError, match=message):
        load_run(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"{", "Invalid JSON"), (b"[]", "should be an object"), (b"[" * 100_000, "Invalid JSON"), (b"\xff\xfe\x00", "Invalid JSON")],
)
def test_a_report_that_is_no_json_object_is_refused(folder: Path, content: bytes, message: str) -> None:
    (folder / "report.json").write_bytes(content)
    with pytest.raises(DataError, match=message):
        load_run(folder)


def test_a_huge_report_is_refused_unparsed(folder: Path) -> None:
    with (folder / "report.json").open("wb") as file:
        file.truncate(MAX_REPORT_BYTES + 1)
    with pytest.raises(DataError, match=r"larger than 64 MiB"):
        load_run(folder)


def test_other_images_than_the_runs_are_refused(folder: Path) -> None:
    _edit_report(folder, lambda report: report["dataset"]["splits"]["test"].update(fingerprint="0" * 64))
    with pytest.raises(
        DataError,
        match=r"the test images of digits are not those of the run .*: their fingerprint is [0-9a-f]{12}…, the run's 000000000000…",
    ):
        load_run(folder).images("test")


def test_the_weights_hash_is_that_of_the_file(digits_run: Run) -> None:
    content = (digits_run.folder / "weights.safetensors").read_bytes()
    assert digits_run.weights_sha256 == hashlib.sha256(content).hexdigest()


def test_the_saved_weights_hold_no_copy_of_the_preprocessing(digits_run: Run) -> None:
    weights = safetensors.torch.load_file(digits_run.folder / "weights.safetensors")
    assert all(name.startswith("body.") for name in weights)


def test_a_report_without_a_schema_number_is_read_and_one_with_another_is_refused(folder: Path) -> None:
    report = load_run(folder).report
    _edit_report(folder, lambda content: content.pop("schema"))
    assert load_run(folder).report == report
    _edit_report(folder, lambda content: content.update(schema=2))
    with pytest.raises(DataError, match=r"schema: 2 is not known here, only 1: it was written by another version of Sightline\."):
        load_run(folder)


def test_a_report_is_written_again_as_it_was_read(folder: Path) -> None:
    _edit_report(folder, lambda content: content["training"].update(later="a field that is not known here"))
    report = load_run(folder).report
    write_report(folder / "report.json", report)
    assert load_run(folder).report == report
    assert json.loads((folder / "report.json").read_text())["training"]["later"] == "a field that is not known here"
