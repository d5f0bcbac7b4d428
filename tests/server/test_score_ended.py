"""How signals end `sightline score`, and which version of a model it asks for, with the real server."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from sightline import Classifier, cli
from sightline.errors import RowsFailed
from sightline.scoring import ScoreSettings, rows_of, score
from sightline_serving.server import Server, start_server
from sightline_serving.settings import FREE_PORTS
from support.many_names import in_two_classes
from support.tiny_models import publish_tiny

pytestmark = pytest.mark.triton

SIGHTLINE = str(Path(sys.executable).parent / "sightline")
IMAGES = 3000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return in_two_classes(tmp_path / "in", IMAGES)


@pytest.fixture
def stopped_server(repository: Path) -> Iterator[Server]:
    with start_server(repository, FREE_PORTS) as server:
        yield server
        with suppress(ProcessLookupError):
            os.kill(server.pid, signal.SIGCONT)


@pytest.mark.parametrize(
    ("number", "protocol", "code"), [(signal.SIGTERM, "grpc", 143), (signal.SIGINT, "http", 130), (signal.SIGHUP, "grpc", 129)]
)
def test_a_signal_ends_the_job_with_its_journal_written_and_resuming_makes_the_clean_file(
    stopped_server: Server, folder: Path, tmp_path: Path, number: signal.Signals, protocol: str, code: int
) -> None:
    out, url = tmp_path / "rows.csv", stopped_server.grpc_url if protocol == "grpc" else stopped_server.http_url
    command = [SIGHTLINE, "score", "tiny", str(folder), "--out", str(out), "--url", url, "--labelled", "--timeout", "5"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        deadline_s = time.monotonic() + 60
        part = tmp_path / "rows.csv.part"
        while not (part.exists() and part.stat().st_size):
            assert time.monotonic() < deadline_s
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.005)
        # The server freezes: what is in flight is not answered, and the signal comes while the job waits.
        os.kill(stopped_server.pid, signal.SIGSTOP)
        second = subprocess.run([*command, "--resume"], capture_output=True, text=True, check=False, timeout=60)
        assert second.returncode == 2
        assert second.stderr == f"error: {out}: process {process.pid} is writing this file: wait for it, or name another file\n"
        process.send_signal(number)
        _, said = process.communicate(timeout=30)
    finally:
        process.kill()
        os.kill(stopped_server.pid, signal.SIGCONT)
    assert process.returncode == code
    assert said.splitlines()[-1] == f"ended by {number.name}: the same command with --resume goes on where it was"
    assert not out.exists()
    done = subprocess.run([*command, "--resume"], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(
        f"{IMAGES:,} rows in {out} (0 with an error; 0 with a remark; 0 other files passed over; version 1, card "
    )
    assert " of them from before)" in done.stdout
    assert {row.truth for row in rows_of(out)} == {"cat", "dog"}
    with Classifier("tiny", url, version="1") as classifier:
        assert score(classifier, folder, tmp_path / "clean.csv", ScoreSettings(labelled=True)).out.read_bytes() == out.read_bytes()


def test_the_newest_version_is_asked_for_from_the_beginning_to_the_end(repository: Path, folder: Path, tmp_path: Path) -> None:
    (folder / "cat" / "00000.txt").write_text("text")
    (folder / "cat" / "=1+1.png").write_bytes(b"")
    publish_tiny(repository.parent / "second", version=10, seed=3)
    (repository.parent / "second" / "tiny" / "10").rename(repository / "tiny" / "10")
    config = repository / "tiny" / "config.pbtxt"
    config.write_text(config.read_text() + "version_policy { all {} }\n")
    with start_server(repository, FREE_PORTS) as server:
        for options, version in (([], "10"), (["--version", "1", "--overwrite"], "1")):
            with pytest.raises(RowsFailed) as failed:
                cli.run(["score", "tiny", str(folder), "--out", str(tmp_path / "rows.csv"), "--url", server.grpc_url, *options])
            assert str(failed.value) == f"1 of {IMAGES + 1:,} images could not be read: their rows in {tmp_path}/rows.csv say why"
            assert {row.version for row in rows_of(tmp_path / "rows.csv")} == {version, ""}
