"""From a run folder to a published version, and every way in which nothing is published."""

import hashlib
import json
import re
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sightline.card import ModelCard, unseal
from sightline.cli import run as sightline
from sightline.errors import DataError, GateRefused, RepositoryError, UsageError
from sightline.reformatting import reformat
from sightline.repository.layout import version_numbers
from sightline.repository.publish import PublishedVersion
from sightline.repository.read import check_files, read_version
from sightline_export.graph.sampling import fitting, spread
from sightline_export.pipeline import Listeners, flop_per_image
from sightline_export.settings import ExportSettings
from sightline_export.sources.run import export_run
from sightline_training.run.run import load_run
from support.present import present
from support.reports import as_json


@pytest.fixture(scope="module")
def exported(digits_run: Path, tmp_path_factory: pytest.TempPathFactory) -> PublishedVersion:
    """Only to be read."""
    return export_run(digits_run, tmp_path_factory.mktemp("exported") / "models")[0].published


@pytest.fixture
def changed_run(digits_run: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(digits_run, tmp_path / "changed"))


@pytest.fixture
def repository(exported: PublishedVersion, tmp_path: Path) -> Path:
    """A copy of the repository with one version of mnist."""
    return Path(shutil.copytree(exported.folder.parent.parent, tmp_path / "models"))


def edit(file: Path, **fields: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))


def test_a_run_becomes_a_complete_version_with_its_provenance(exported: PublishedVersion, digits_run: Path) -> None:
    version = read_version(exported.folder)
    check_files(version)
    assert (exported.model, exported.number) == ("mnist", 1)
    assert set(version.report.files) == {"model.onnx", "golden/golden.json", *(f"golden/0{at}.png" for at in range(8))}
    run, report = load_run(digits_run), as_json(version.report)
    provenance = report["provenance"]
    assert (provenance["run"], provenance["recipe"], provenance["seed"]) == ("digits", "mnist", 0)
    assert (
        provenance["weights_sha256"] == run.weights_sha256 == hashlib.sha256((digits_run / "weights.safetensors").read_bytes()).hexdigest()
    )
    assert provenance["card_sha256"] == report["card_sha256"] == run.card.sha256
    figures = present(run.report.accuracy["test"]).model_dump(mode="json")
    assert provenance["judged"] == {"split": "test"} | {key: figures[key] for key in ("n", "accuracy", "interval_95")}
    assert report["gate"]["data"] == {"name": "digits", "split": "test", "fingerprint": run.images("test").fingerprint}
    assert (report["gate"]["passed"], report["gate"]["pictures"], report["precision"], report["opset"]) == (True, 360, "fp32", 18)
    assert report["model_bytes"] == (exported.folder / "model.onnx").stat().st_size
    assert report["tools"]["torch"].startswith("2.")
    measured = {check["name"]: check["measured"] for check in report["gate"]["checks"]}
    assert measured["accuracy"] == pytest.approx(provenance["judged"]["accuracy"])
    assert measured["|Δ accuracy| of torch to the run's report"] == 0


def test_all_copies_of_the_card_are_the_runs(exported: PublishedVersion, digits_run: Path) -> None:
    card = load_run(digits_run).card
    assert unseal((exported.folder.parent / "card.json").read_text(), "card.json") == card
    assert json.loads((exported.folder / "golden" / "golden.json").read_text())["card_sha256"] == card.sha256


def test_golden_images_are_images_of_the_test_set_with_the_trained_networks_answers(exported: PublishedVersion, digits_run: Path) -> None:
    run = load_run(digits_run)
    golden = json.loads((exported.folder / "golden" / "golden.json").read_text())
    tested = run.images("test")
    known = {
        pixels.tobytes(): run.card.labels[label] for pixels, label in zip(tested.pixels(run.card.preprocess), tested.labels, strict=True)
    }
    import torch

    for image in golden["pictures"]:
        pixels = reformat(exported.folder / "golden" / image["file"], run.card.preprocess)
        assert known[pixels.tobytes()] == image["label"]
        with torch.inference_mode():
            probabilities = run.network()(torch.from_numpy(pixels[None])).numpy()[0]
        assert np.abs(probabilities - np.float32(image["probabilities"])).max() < 1e-6


def test_nothing_of_this_machine_is_in_the_repository(exported: PublishedVersion, digits_run: Path) -> None:
    traces = [
        str(exported.folder.parent.parent.parent),
        str(digits_run.parent),
        str(Path.cwd()),
        str(Path.home()),
        "site-packages",
        "/tmp/",
        "/usr/",
    ]
    for file in exported.folder.parent.rglob("*"):
        for trace in traces if file.is_file() else []:
            assert trace.encode() not in file.read_bytes(), (file, trace)


def test_the_same_run_exported_again_is_the_same_file_and_is_not_published_twice(repository: Path, digits_run: Path) -> None:
    notices: list[str] = []
    (done,) = export_run(digits_run, repository, listeners=Listeners(notify=notices.append))
    assert done.already
    assert (done.published.number, done.published.folder) == (1, repository / "mnist" / "1")
    assert version_numbers(repository / "mnist") == [1]
    assert notices == ["exporting mnist to ONNX (opset 18)"]


def test_again_publishes_the_same_model_as_a_new_version(repository: Path, digits_run: Path) -> None:
    (done,) = export_run(digits_run, repository, ExportSettings(again=True, images=20))
    assert (done.already, done.published.number) == (False, 2)
    first, second = (read_version(repository / "mnist" / str(number)) for number in (1, 2))
    assert first.report.files == second.report.files
    assert as_json(second.report)["gate"]["pictures"] == 20


def test_a_damaged_newest_version_is_no_reason_not_to_publish(repository: Path, digits_run: Path) -> None:
    model = repository / "mnist" / "1" / "model.onnx"
    model.chmod(0o644)
    model.write_bytes(model.read_bytes()[:-1])
    (done,) = export_run(digits_run, repository, ExportSettings(images=20))
    assert (done.already, done.published.number) == (False, 2)


def test_a_run_that_reports_an_accuracy_that_its_weights_do_not_have_is_refused(changed_run: Path, tmp_path: Path) -> None:
    report = json.loads((changed_run / "report.json").read_text())
    report["accuracy"]["test"]["accuracy"] = 0.5
    edit(changed_run / "report.json", accuracy=report["accuracy"])
    with pytest.raises(GateRefused) as refused:
        export_run(changed_run, tmp_path / "models")
    assert str(refused.value).startswith(
        "mnist was refused by the gate (fp32, 360 images) and not published: |Δ accuracy| of torch to the run's report is 0."
    )
    assert [path.name for path in (tmp_path / "models").iterdir() if path.is_dir()] == []


def test_a_run_without_an_accuracy_is_refused(changed_run: Path, tmp_path: Path) -> None:
    edit(changed_run / "report.json", accuracy={"test": {"n": 360}})
    with pytest.raises(DataError, match=r"no report of a run: accuracy\.test\.correct: Field required\.$"):
        export_run(changed_run, tmp_path / "models")


def test_weights_that_are_not_the_reported_ones_are_refused(changed_run: Path, tmp_path: Path) -> None:
    weights = bytearray((changed_run / "weights.safetensors").read_bytes())
    weights[-1] ^= 1
    (changed_run / "weights.safetensors").write_bytes(weights)
    with pytest.raises(DataError, match=r"the weights are not those that report\.json describes"):
        export_run(changed_run, tmp_path / "models")
    assert not (tmp_path / "models").exists()


def test_a_card_that_differs_from_the_published_one_is_refused_before_the_export(repository: Path, changed_run: Path) -> None:
    run = load_run(changed_run)
    card = ModelCard.model_validate({**run.card.model_dump(), "max_batch_size": 3})
    from sightline.card import seal

    (changed_run / "card.json").write_text(seal(card))
    edit(changed_run / "report.json", card_sha256=card.sha256)
    notices: list[str] = []
    with pytest.raises(RepositoryError, match=r"^mnist is published in .* with another max_batch_size: \d+ there, 3 here\."):
        export_run(changed_run, repository, listeners=Listeners(notify=notices.append))
    assert notices == []


def test_a_reworded_description_is_exported_with_the_published_one(repository: Path, changed_run: Path) -> None:
    run = load_run(changed_run)
    card = ModelCard.model_validate({**run.card.model_dump(), "description": "Reworded."})
    from sightline.card import seal

    (changed_run / "card.json").write_text(seal(card))
    edit(changed_run / "report.json", card_sha256=card.sha256)
    (done,) = export_run(changed_run, repository, ExportSettings(again=True, images=20))
    assert done.published.number == 2
    report = as_json(done.published.report)
    assert (report["card_sha256"], report["provenance"]["card_sha256"]) == (run.card.sha256, card.sha256)
    assert report["files"]["model.onnx"] == read_version(repository / "mnist" / "1").report.files["model.onnx"]


def test_images_are_taken_from_all_over_the_data() -> None:
    assert spread(10, 3).tolist() == [0, 3, 6]
    assert spread(360, 1000).tolist() == list(range(360))
    chosen = spread(50_000, 891)
    assert (len(set(chosen.tolist())), chosen.min(), chosen.max() > 49_900) == (891, 0, True)
    with pytest.raises(UsageError, match="the gate needs at least one image to compare, not 0"):
        spread(10, 0)


def test_the_default_number_of_images_is_bounded_by_their_size(digits_run: Path) -> None:
    card = load_run(digits_run).card
    assert fitting(card) == 10_000
    photos = card.preprocess.model_copy(update={"mode": "RGB", "size": (224, 224)})
    assert fitting(card.model_copy(update={"preprocess": photos})) == 891


def test_the_work_of_an_image_is_counted(digits_run: Path) -> None:
    run = load_run(digits_run)
    # Two operations for each weight of 784-512-512-10.
    assert flop_per_image(run.network(), run.card) == 2 * (784 * 512 + 512 * 512 + 512 * 10)


def test_the_command_prints_the_result_on_stdout_and_talks_on_stderr(
    digits_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    repository = tmp_path / "models"
    sightline(["export", str(digits_run), "--repository", str(repository), "--images", "100"])
    captured = capsys.readouterr()
    lines = [" ".join(line.split()) for line in captured.out.splitlines()]
    assert lines[0] == "model mnist version 1"
    assert lines[1].startswith("precision fp32, ONNX opset 18, ")
    assert lines[2] == "gate passed 30 checks on 100 test images of digits"
    assert lines[3] == "same label 100.00%"
    assert lines[-1] == f"folder {repository / 'mnist' / '1'}"
    said = captured.err.splitlines()
    assert re.fullmatch(r"it is served as \d instances? of 1 thread, delay 0 µs, \d+ images? a run", said.pop(4))
    assert said == [
        "exporting mnist to ONNX (opset 18)",
        "comparing ONNX Runtime with torch on 100 of 360 test images of digits",
        "the gate let it pass; publishing",
        "measuring how it is served fast on this machine",
        "mnist_image takes whole JPEG and PNG files, for clients that cannot reformat by themselves (--no-image leaves it out)",
    ]
    sightline(["export", str(digits_run), "--repository", str(repository)])
    captured = capsys.readouterr()
    assert "nothing was published: version 1 of mnist is this very model (--again publishes it anew)" in captured.err
    assert " ".join(captured.out.splitlines()[0].split()) == "model mnist version 1"


def test_a_run_is_found_by_its_name_and_a_wrong_one_lists_those_that_there_are(
    digits_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        DataError, match=r"^there is no run folder digits and none in runs/; there are no runs yet: make one with `sightline train`$"
    ):
        sightline(["export", "digits"])
    shutil.copytree(digits_run, tmp_path / "runs" / "digits")
    with pytest.raises(DataError, match=r"^there is no run folder fruit and none in runs/; the runs there are: digits$"):
        sightline(["export", "fruit"])
    with pytest.raises(DataError, match=r"^there is no run folder elsewhere/digits; the runs there are: digits$"):
        sightline(["export", "elsewhere/digits"])
    sightline(["export", "digits", "--images", "10"])
    assert (tmp_path / "model_repository" / "mnist" / "1" / "model.onnx").is_file()


def test_the_program_ends_with_the_gates_exit_code_and_one_sentence(changed_run: Path, tmp_path: Path) -> None:
    report = json.loads((changed_run / "report.json").read_text())
    report["accuracy"]["test"]["accuracy"] = 0.5
    edit(changed_run / "report.json", accuracy=report["accuracy"])
    program = Path(sys.executable).with_name("sightline")
    done = subprocess.run(
        [program, "export", changed_run, "--repository", tmp_path / "models"], capture_output=True, text=True, check=False
    )
    assert done.returncode == GateRefused.exit_code == 12
    assert done.stdout == ""
    assert done.stderr.splitlines()[-1].startswith("error: mnist was refused by the gate (fp32, 360 images) and not published: ")
    assert len(done.stderr.splitlines()) == 3
    assert "Traceback" not in done.stderr


def test_the_command_module_imports_nothing_heavy() -> None:
    heavy = "{'torch', 'onnx', 'onnxruntime', 'onnxscript', 'rich', 'tritonclient', 'sightline_training'}"
    code = f"import sys, sightline_export.commands.export; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_version_of_onnx_runtime_is_known_whichever_of_its_packages_is_installed(
    digits_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In an environment of `sightline[export-gpu]` there is onnxruntime-gpu, and no onnxruntime."""
    import onnxruntime

    from sightline_export import pipeline

    def without(package: str) -> str:
        if package == "onnxruntime":
            raise PackageNotFoundError(package)
        return version(package)

    monkeypatch.setattr(pipeline, "version", without)
    report = export_run(digits_run, tmp_path / "models", ExportSettings(images=10))[0].published.report
    assert report.tools["onnxruntime"] == onnxruntime.__version__
