"""`sightline tune`: what it tries, what it keeps, and what it leaves alone; one real search with Triton and perf_analyzer."""

import base64
import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest

from sightline import Classifier
from sightline.cli import run as sightline
from sightline.errors import RepositoryError, UsageError
from sightline.host.cpu import usable_cores
from sightline.repository.instances import InstanceSettings, instances_of, marked_as_set, set_on_cores
from sightline.repository.read import model_named
from sightline.repository.shape import choose
from sightline_export.settings import ExportSettings
from sightline_export.sources.run import export_run
from sightline_serving.server import start_server
from sightline_serving.settings import FREE_PORTS
from sightline_serving.tuning.candidates import Candidate
from sightline_serving.tuning.race import FINAL_ROUNDS
from sightline_serving.tuning.subject import subject_named


@pytest.fixture(scope="module")
def published(digits_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Not to be changed."""
    folder = tmp_path_factory.mktemp("published") / "models"
    export_run(digits_run, folder, ExportSettings(images=20, image_ensemble=False))
    return folder


@pytest.fixture
def repository(published: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(published, tmp_path / "models"))


def instances_in(repository: Path) -> InstanceSettings:
    return instances_of(model_named(repository, "mnist").config)


def test_settings_given_by_hand_are_written_and_nothing_else_changes(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = model_named(repository, "mnist").config
    sightline(["tune", "mnist", "--repository", str(repository), "--instances", "3", "--queue-delay", "250"])
    run = instances_of(before).largest_run
    sentence = f"mnist: 3 instances of 1 thread, delay 250 µs, {run} images a run, from the server's next start on\n"
    assert capsys.readouterr().err == (sentence.replace("1 images", "1 image") if run == 1 else sentence)
    assert instances_in(repository) == InstanceSettings(3, 1, 250, run)
    sightline(["tune", "mnist", "--repository", str(repository), "--threads", "0", "--no-batching"])
    assert str(instances_in(repository)).startswith("3 instances of all threads, no batching, ")
    sightline(["tune", "mnist", "--repository", str(repository), "--instances", "1", "--threads", "1", "--queue-delay", "0"])
    after = model_named(repository, "mnist").config
    assert set_on_cores(after) == usable_cores()
    assert marked_as_set(before, usable_cores()) == after


def test_export_takes_the_same_settings_for_a_new_model_and_for_one_that_is_there(digits_run: Path, tmp_path: Path) -> None:
    arguments = ["export", str(digits_run), "--repository", str(tmp_path), "--images", "20", "--no-image"]
    sightline([*arguments, "--instances", "2", "--threads", "0"])
    run = instances_in(tmp_path).largest_run
    assert run >= 1
    assert instances_in(tmp_path) == InstanceSettings(2, 0, 0, run)
    sightline([*arguments, "--no-batching"])
    assert instances_in(tmp_path) == InstanceSettings(2, 0, None, run)
    with pytest.raises(UsageError, match="--queue-delay is a setting of batching"):
        sightline([*arguments, "--queue-delay", "1", "--no-batching"])


def test_what_makes_no_sense_is_refused(repository: Path) -> None:
    with pytest.raises(UsageError, match="--queue-delay is a setting of batching: leave out it or --no-batching"):
        sightline(["tune", "mnist", "--repository", str(repository), "--queue-delay", "1", "--no-batching"])
    with pytest.raises(UsageError, match="--dry-run goes with measuring"):
        sightline(["tune", "mnist", "--repository", str(repository), "--instances", "1", "--dry-run"])
    with pytest.raises(RepositoryError, match=r"there is no model fruit in .*models: it has mnist"):
        sightline(["tune", "fruit", "--repository", str(repository)])


def test_without_golden_images_somebody_must_name_some(repository: Path) -> None:
    shutil.rmtree(repository / "mnist" / "1" / "golden")
    with pytest.raises(UsageError, match=r"mnist has no golden images in .*: say which images to send with --images FOLDER"):
        sightline(["tune", "mnist", "--repository", str(repository)])


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("mnist", "there are no images to measure with"),
        ("mnist_image", "to a model that takes encoded images, files are sent: name their paths, or give their bytes"),
    ],
)
def test_what_cannot_be_sent_is_refused(digits_run: Path, tmp_path: Path, model: str, message: str) -> None:
    export_run(digits_run, tmp_path / "models", ExportSettings(images=20))
    images = [] if model == "mnist" else [np.zeros((8, 8), np.uint8)]
    with pytest.raises(UsageError) as refusal:
        subject_named(tmp_path / "models", model, images, 2)
    assert str(refusal.value) == message


def test_what_is_present_is_what_serve_serves_on_this_machine(repository: Path) -> None:
    model = model_named(repository, "mnist")
    report = model.versions[0].report
    assert report.shape is not None
    for cores in (1, 2, 64):
        chosen = choose(report.shape.on(cores), report.model_bytes, report.flop_per_image)
        assert subject_named(repository, "mnist", [np.zeros((8, 8), np.uint8)], cores).present == Candidate(chosen)


def test_encoded_images_are_sent_as_they_are_each_behind_its_length(digits_run: Path, tmp_path: Path) -> None:
    export_run(digits_run, tmp_path / "models", ExportSettings(images=20))
    golden = tmp_path / "models" / "mnist" / "1" / "golden"
    files = sorted(golden.glob("*.png"))
    subject = subject_named(tmp_path / "models", "mnist_image", files, 2)
    sent = [base64.b64decode(each["pictures"]["content"]["b64"]) for each in json.loads(subject.data())["data"]]
    assert sent == [len(file.read_bytes()).to_bytes(4, "little") + file.read_bytes() for file in files]
    assert subject.name == "mnist_image"
    assert subject.present.reformats == 1


def searching(repository: Path, *options: str) -> subprocess.Popen[str]:
    """A search as a process of its own that has begun to measure."""
    command = [str(Path(sys.executable).parent / "sightline"), "tune", "mnist", "--repository", str(repository), *options]
    search = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert search.stderr is not None
    lines = iter(search.stderr.readline, "")
    assert next((line for line in lines if line.startswith("measurement ")), None) is not None
    return search


@pytest.mark.triton
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_ending_a_search_leaves_no_server_and_the_repository_as_it_was(repository: Path, number: signal.Signals) -> None:
    before = {file: file.read_bytes() for file in repository.rglob("*") if file.is_file()}
    search = searching(repository, "--concurrency", "2")
    try:
        started = psutil.Process(search.pid).children(recursive=True)
        assert "tritonserver" in {process.name() for process in started}
        search.send_signal(number)
        search.communicate(timeout=60)
    finally:
        search.kill()
    assert search.returncode == (130 if number is signal.SIGINT else -number)
    _, living = psutil.wait_procs(started, timeout=30)
    assert living == []
    assert {file: file.read_bytes() for file in repository.rglob("*") if file.is_file() and file.name != ".lock"} == before


@pytest.mark.triton
@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("model", ["mnist", "mnist_image"])
def test_a_search_measures_every_setting_and_leaves_a_repository_that_serves(
    digits_run: Path, tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    repository = tmp_path / "models"
    export_run(digits_run, repository, ExportSettings(images=20))
    monkeypatch.setattr("sightline_serving.tuning.race.KEPT_AFTER_FIRST", 2)
    monkeypatch.setattr("sightline_serving.tuning.candidates.RUNS", (1, 0))
    versions = json.loads((repository / "mnist" / "1" / "report.json").read_text())["files"]
    present = subject_named(repository, model, sorted((repository / "mnist" / "1" / "golden").glob("*.png")), usable_cores()).present
    document = tmp_path / "tune.json"
    load = ["--window", "0.3", "--concurrency", "4", "--concurrency", "1"]
    sightline(["tune", model, "--repository", str(repository), *load, "--json", str(document)])
    captured = capsys.readouterr()
    rows = captured.out.splitlines()[1:]
    assert rows[0].startswith(f"{present}  ")
    assert " now" in rows[0]
    assert sum(" best" in row for row in rows) == 1
    assert re.match(r"\d+ settings are tried beside the present one, .*: about \d+ (min|s) at most$", captured.err.splitlines()[0])
    written = json.loads(document.read_text())
    assert [each["setting"] for each in written["trials"]] == [re.split(r"  +", row)[0] for row in rows]
    assert all(min(each["images_per_s"]) > 0 and each["memory_mib"] > 10 for each in written["trials"])
    assert all(len(each["rounds"]) == FINAL_ROUNDS for each in written["trials"] if each["final"])
    (best,) = (each for each in written["trials"] if each["best"])
    kept = subject_named(repository, model, [(repository / "mnist" / "1" / "golden" / "00.png")], usable_cores()).present
    assert str(kept) == best["setting"]
    assert json.loads((repository / "mnist" / "1" / "report.json").read_text())["files"] == versions
    with start_server(repository, FREE_PORTS) as server, Classifier("mnist", server.grpc_url, check=True) as classifier:
        assert len(classifier.classify(sorted((repository / "mnist" / "1" / "golden").glob("*.png")))) > 0
