"""`sightline tune`: what it tries, what it keeps, and what it leaves alone; one real search with Triton and perf_analyzer."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from sightline.cli import run as sightline
from sightline.errors import RepositoryError, UsageError
from sightline.repository.instances import InstanceSettings, instances_of
from sightline.repository.read import model_named
from sightline_export.settings import ExportSettings
from sightline_export.sources.run import export_run
from sightline_serving.tuning import Trial, _best, candidates_on
from support.tiny_models import Publish


@pytest.fixture
def repository(digits_run: Path, tmp_path: Path) -> Path:
    export_run(digits_run, tmp_path / "models", ExportSettings(images=20, image_ensemble=False))
    return tmp_path / "models"


def instances_in(repository: Path) -> InstanceSettings:
    return instances_of(model_named(repository, "mnist").config)


@pytest.mark.parametrize(
    ("present", "cores", "tried"),
    [
        (InstanceSettings(1, 1), 1, [(1, 1), (1, 2), (2, 1)]),
        (InstanceSettings(1, 1), 2, [(1, 1), (1, 2), (2, 1)]),
        (InstanceSettings(1, 0), 2, [(1, 0), (1, 1), (2, 1)]),
        (InstanceSettings(2, 1), 16, [(2, 1), (1, 1), (1, 2), (1, 8), (1, 16), (2, 2), (2, 8), (8, 1), (8, 2), (16, 1)]),
        (InstanceSettings(3, 5), 2, [(3, 5), (1, 1), (1, 2), (2, 1)]),
    ],
)
def test_the_present_setting_is_tried_first_and_none_twice(present: InstanceSettings, cores: int, tried: list[tuple[int, int]]) -> None:
    assert [(settings.instances, settings.threads) for settings in candidates_on(cores, present)] == tried


def trial(ratio: float, least: float, p99: float, delay: int = 0) -> Trial:
    return Trial(InstanceSettings(1, 1, delay), 100 * ratio, p99, ratio, least)


def test_the_present_setting_stays_unless_another_is_faster_in_every_round() -> None:
    now = trial(1.0, 1.0, 5.0)
    assert _best([now, trial(1.5, 1.04, 5.0, 1)], None) is now
    faster = trial(1.2, 1.1, 5.0, 2)
    assert _best([now, faster, trial(1.1, 1.1, 5.0, 3)], None) is faster


def test_a_limit_of_latency_comes_before_speed_and_the_nearest_wins_if_none_keeps_to_it() -> None:
    now, fast, calm = trial(1.0, 1.0, 9.0), trial(2.0, 2.0, 8.0, 1), trial(0.5, 0.5, 3.0, 2)
    assert _best([now, fast, calm], 5.0) is calm
    assert _best([now, fast, calm], 8.5) is fast
    assert _best([now, fast, calm], 1.0) is calm


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
    assert model_named(repository, "mnist").config == before


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


def test_without_golden_images_somebody_must_name_some(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sightline.bench.find_perf_analyzer", lambda: Path("perf_analyzer"))
    shutil.rmtree(repository / "mnist" / "1" / "golden")
    with pytest.raises(UsageError, match=r"mnist has no golden images in .*: say which images to send with --images FOLDER"):
        sightline(["tune", "mnist", "--repository", str(repository)])


@pytest.mark.triton
def test_killing_a_search_leaves_no_server(tmp_path: Path, publish: Publish) -> None:
    """Also with kill -9. The measurement, which is another program's business, takes for ever here."""
    publish(tmp_path / "models")
    program = (
        "import sys, threading\n"
        "from pathlib import Path\n"
        "from sightline_serving import tuning\n"
        "tuning.bench = lambda *_: (print('measuring', flush=True), threading.Event().wait())\n"
        "tuning.tune(Path(sys.argv[1]), 'tiny', [])\n"
    )
    search = subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "models")], stdout=subprocess.PIPE, text=True)
    try:
        assert search.stdout is not None
        assert search.stdout.readline() == "measuring\n"
        started = psutil.Process(search.pid).children(recursive=True)
        assert "tritonserver" in {process.name() for process in started}
    finally:
        search.kill()
        search.communicate()
    _, living = psutil.wait_procs(started, timeout=30)
    assert living == []


@pytest.mark.triton
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_search_measures_every_setting_and_leaves_a_repository_that_serves(
    repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sightline_serving.tuning.ROUNDS", 1)
    versions = json.loads((repository / "mnist" / "1" / "report.json").read_text())["files"]
    sightline(["tune", "mnist", "--repository", str(repository), "--window", "0.5", "--concurrency", "4"])
    captured = capsys.readouterr()
    rows = captured.out.splitlines()[1:]
    assert "1 instance of 1 thread, delay 0 µs" in rows[0]
    assert " now" in rows[0]
    assert sum(" best" in row for row in rows) == 1
    assert all(float(row.split("µs")[1].split()[0].replace(",", "")) > 0 for row in rows)
    kept = next(row for row in rows if " best" in row).split("  ")[0]
    assert str(instances_in(repository)) == kept
    assert json.loads((repository / "mnist" / "1" / "report.json").read_text())["files"] == versions
