"""A training that was killed with kill -9 ends with the very weights of one that was not."""

import csv
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from random import Random

import pytest
import torch

from sightline.cli import run as sightline
from sightline.errors import DataError, MachineError
from sightline_training.run.run import load_run
from support.killed_training import forked_command, in_child, train_digits, without_room

EPOCHS = 30
COMMAND = ["train", "mnist", "--data", "digits", "--augment", "--device", "cpu", "--epochs", str(EPOCHS), "--run"]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Sums depend on the number of threads; the killed process and this one must agree on it."""
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def killed_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a real `sightline train` leaves that was killed after its eleventh epoch, at whatever it was doing then."""
    folder = tmp_path_factory.mktemp("runs") / "killed"
    process = _started(folder, until="epoch 11/30")
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    return folder


@pytest.fixture
def folder(killed_folder: Path, tmp_path: Path) -> Path:
    """A copy elsewhere: a run folder may also be moved before it is continued."""
    shutil.copytree(killed_folder, tmp_path / "run")
    return tmp_path / "run"


def _started(folder: Path, until: str, *more: str) -> "subprocess.Popen[str]":
    """A real `sightline train`, returned when it has printed a line that begins so."""
    process = subprocess.Popen(
        # As in a terminal: a process that was started in the background ignores Ctrl-C, and so do its children.
        ["env", "--default-signal=INT", sys.executable, "-m", "sightline.cli", *COMMAND, str(folder), *more],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith(until):
            return process
    raise AssertionError(f"it ended before {until!r}, with {process.wait()}")


def _metrics(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open() as file:
        return [{name: value for name, value in line.items() if "seconds" not in name} for line in csv.DictReader(file)]


def test_a_killed_training_is_no_run_and_the_sentence_says_how_to_continue(folder: Path) -> None:
    with pytest.raises(DataError) as refused:
        load_run(folder)
    advice = "Run the same `sightline train` command again: it continues."
    assert str(refused.value) == f"{folder} holds no finished run (no report.json). {advice}"


def test_a_killed_training_continues_and_ends_with_the_same_weights(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("settings.json", "weights.safetensors", "card.json", "metrics.csv", "curves.png", "mistakes.png", "report.json"):
        (folder / f".{name}-k1ll3d").write_bytes(b"half of it")
    sightline([*COMMAND, str(folder)])
    assert [file.name for file in folder.rglob(".*")] == []
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f"continuing the run in {folder}"
    # The eleventh epoch's line comes before its checkpoint, so that it may have been cut off too; no earlier one runs again.
    assert 11 <= int(lines[1].removeprefix("epoch").split("/")[0]) < EPOCHS

    sightline([*COMMAND, str(tmp_path / "whole")])
    assert load_run(folder).weights_sha256 == load_run(tmp_path / "whole").weights_sha256
    assert _metrics(folder) == _metrics(tmp_path / "whole")
    assert len(_metrics(folder)) == EPOCHS


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_training_ends_with_the_shells_exit_code_and_without_a_traceback(tmp_path: Path, sent: signal.Signals, code: int) -> None:
    folder = tmp_path / "stopped"
    # So many that it cannot be done before the signal arrives, however busy the machine.
    with forked_command([*COMMAND, str(folder), "--epochs", "9000"]) as (pid, printed):
        assert next((line for line in printed if line.startswith("epoch    2/9000")), None)
        os.kill(pid, sent)
        rest = printed.read()
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == code
    assert "Traceback" not in rest
    assert (f"The same command continues from the last finished epoch in {folder}." in rest) == (sent == signal.SIGINT)
    assert (folder / "checkpoints" / "stage-1" / "last.ckpt").is_file()
    assert not (folder / "report.json").exists()


def test_a_damaged_checkpoint_is_named_with_the_way_out(folder: Path) -> None:
    last = folder / "checkpoints" / "stage-1" / "last.ckpt"
    last.write_bytes(last.read_bytes()[:-5000])
    with pytest.raises(DataError) as refused:
        sightline([*COMMAND, str(folder)])
    assert str(refused.value).startswith(f"{last}: damaged checkpoint (")
    assert str(refused.value).endswith("Begin anew. (Options: `--restart`)")


@pytest.mark.parametrize("history", [None, 3, ["epoch"], [{"epoch": 1}], {"epoch": 1}])
def test_a_checkpoint_with_a_meaningless_history_is_refused(folder: Path, history: object) -> None:
    last = folder / "checkpoints" / "stage-1" / "last.ckpt"
    torch.save({**torch.load(last, weights_only=True), "history": history}, last)
    with pytest.raises(DataError) as refused:
        sightline([*COMMAND, str(folder)])
    assert str(refused.value).startswith(f"{last}: damaged checkpoint (")


def test_a_checkpoint_that_would_run_code_is_refused_and_runs_none(folder: Path, tmp_path: Path) -> None:
    proof = tmp_path / "it ran"

    class Hostile:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(proof),)

    torch.save({"history": [], "state_dict": Hostile()}, folder / "checkpoints" / "stage-1" / "last.ckpt")
    with pytest.raises(DataError, match="damaged checkpoint"):
        sightline([*COMMAND, str(folder)])
    assert not proof.exists()


OTHER_DISKS = [pytest.param(Path("/dev/shm"), id="tmpfs"), pytest.param(None, id="beside the data", marks=pytest.mark.slow)]


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "whole"
    assert in_child(partial(train_digits, folder)) == 0
    return folder


@pytest.mark.parametrize("kills", [3, pytest.param(30, marks=pytest.mark.slow)])
@pytest.mark.parametrize("disk", OTHER_DISKS)
def test_killed_at_any_moment_it_goes_on_and_ends_with_the_same_weights(
    disk: Path | None, kills: int, whole_run: Path, tmp_path: Path
) -> None:
    """Also where the run folder and the folder of temporary files are on different file systems."""
    began = time.monotonic()
    assert in_child(partial(train_digits, tmp_path / "measured")) == 0
    takes_s = time.monotonic() - began
    random = Random(kills)
    with tempfile.TemporaryDirectory(dir=disk or tmp_path) as place:
        folder = Path(place) / "run"
        done = 0
        while done < kills:
            code = in_child(partial(train_digits, folder), kill_after_s=random.uniform(0.2, 1.0) * takes_s)
            assert code in (0, -signal.SIGKILL)
            done += 1
            if code == 0:
                # It had come to its end: so much the better for it, and the others begin anew.
                assert load_run(folder).weights_sha256 == load_run(whole_run).weights_sha256
                shutil.rmtree(folder)
        assert in_child(partial(train_digits, folder)) == 0
        assert load_run(folder).weights_sha256 == load_run(whole_run).weights_sha256
        assert _metrics(folder) == _metrics(whole_run)
        assert [file.name for file in folder.rglob(".*")] == []


def test_a_full_disk_leaves_the_last_checkpoint_as_it_was(whole_run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    last = folder / "checkpoints" / "stage-1" / "last.ckpt"
    assert in_child(partial(train_digits, folder), kill_with=last) == -signal.SIGKILL
    before = last.read_bytes()
    assert not (folder / "report.json").exists()
    assert in_child(partial(without_room, folder, len(before) // 2)) == MachineError.exit_code == 17
    assert last.read_bytes() == before
    assert [file.name for file in folder.rglob(".*")] == []
    assert in_child(partial(train_digits, folder)) == 0
    assert load_run(folder).weights_sha256 == load_run(whole_run).weights_sha256
