"""A batch job outlasts its server: Triton killed and started again, several times, over both protocols, and no row is lost or wrong."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from sightline import Classifier
from sightline.errors import ServerUnavailable
from sightline.scoring import ScoreProgress, ScoreSettings, rows_of, score
from sightline_serving import restarting
from sightline_serving.restarting import keep_serving
from sightline_serving.server import Server, start_server
from sightline_serving.settings import FREE_PORTS

pytestmark = pytest.mark.triton

SIGHTLINE = str(Path(sys.executable).parent / "sightline")
IMAGES = 2000


class Ended(BaseException):
    """Ends the thread that serves."""


class Restarted:
    """A Triton that is started again whenever it dies; `kills` end it."""

    def __init__(self, repository: Path) -> None:
        self.servers: list[Server] = []
        self._stop = False
        self._thread = threading.Thread(target=self._serve, args=(repository,), daemon=True)
        self._thread.start()
        self.wait_for(1)

    def _serve(self, repository: Path) -> None:
        with contextlib.suppress(Ended):
            keep_serving(repository, replace(FREE_PORTS, stop_timeout_s=1.0), self._ready)

    def _ready(self, server: Server) -> None:
        self.servers.append(server)
        if self._stop:
            raise Ended

    def wait_for(self, count: int) -> None:
        deadline_s = time.monotonic() + 60
        while len(self.servers) < count:
            assert time.monotonic() < deadline_s, "Triton did not come back"
            time.sleep(0.02)

    def end(self) -> None:
        self._stop = True
        os.kill(self.servers[-1].pid, signal.SIGKILL)
        self._thread.join(60)


@pytest.fixture
def restarted(repository: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Restarted]:
    monkeypatch.setattr(restarting, "FIRST_PAUSE_S", 0.05)
    monkeypatch.setattr(restarting, "MOST_RESTARTS", 50)
    server = Restarted(repository)
    try:
        yield server
    finally:
        server.end()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Images of random pixels, one in fifty broken."""
    pixels = np.random.default_rng(0).integers(0, 256, (IMAGES, 6, 5, 3), dtype=np.uint8)
    place = tmp_path / "in"
    place.mkdir()
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(place / f"{number:05}.png", compress_level=0)
        if number % 50 == 7:
            (place / f"{number:05}.png").write_bytes(b"no image")
    return place


def sigkill(server: Server) -> None:
    os.kill(server.pid, signal.SIGKILL)


def sigterm(server: Server) -> None:
    os.kill(server.pid, signal.SIGTERM)


def kill_a_worker(server: Server) -> None:
    psutil.Process(server.pid).children()[0].kill()


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_a_server_that_is_killed_again_and_again_costs_no_row(restarted: Restarted, folder: Path, tmp_path: Path, protocol: str) -> None:
    url = restarted.servers[0].grpc_url if protocol == "grpc" else restarted.servers[0].http_url
    kills: list[Callable[[Server], None]] = [sigkill, sigterm, kill_a_worker, sigkill]
    with Classifier("tiny", url, version="1", wait_s=120) as classifier:
        clean = score(classifier, folder, tmp_path / "clean.csv").out.read_bytes()
        waiting = list(kills)

        def kill(progress: ScoreProgress) -> None:
            if waiting and progress.rows >= IMAGES // 5 * (len(kills) - len(waiting) + 1):
                restarted.wait_for(len(kills) - len(waiting) + 1)
                waiting.pop(0)(restarted.servers[-1])

        done = score(classifier, folder, tmp_path / "rows.csv", ScoreSettings(requests=8), kill)
    assert waiting == []
    assert len(restarted.servers) > len(kills)
    assert (done.rows, done.broken, done.resumed_rows) == (IMAGES, IMAGES // 50, 0)
    assert done.out.read_bytes() == clean


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_a_server_that_stays_away_ends_the_job_and_the_command_resumes_it(
    repository: Path, folder: Path, tmp_path: Path, protocol: str
) -> None:
    out = tmp_path / "rows.jsonl"
    with start_server(repository, FREE_PORTS) as server:
        url = server.grpc_url if protocol == "grpc" else server.http_url
        with Classifier("tiny", url, version="1", wait_s=1) as classifier:

            def kill(progress: ScoreProgress) -> None:
                if progress.rows == 400:
                    os.kill(server.pid, signal.SIGKILL)

            with pytest.raises(ServerUnavailable) as failure:
                score(classifier, folder, out, progress=kill)
    assert failure.value.exit_code == 6
    assert f" rows are safe in {out}.part: the job can be resumed)" in str(failure.value)
    with start_server(repository, FREE_PORTS) as server:
        url = server.grpc_url if protocol == "grpc" else server.http_url
        command = [SIGHTLINE, "score", "tiny", str(folder), "--out", str(out), "--url", url, "--resume"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 16, done.stderr
        counts = f"({IMAGES // 50} with an error; 0 with a remark; 0 other files passed over; version 1, card "
        assert done.stdout.startswith(f"{IMAGES:,} rows in {out} {counts}")
        assert " of them from before)" in done.stdout
        with Classifier("tiny", url, version="1") as classifier:
            assert score(classifier, folder, tmp_path / "clean.jsonl").out.read_bytes() == out.read_bytes()
    again = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert again.returncode == 16
    assert again.stdout == f"{out} was finished before: {IMAGES:,} rows ({IMAGES // 50} with an error); nothing was done\n"
    assert len(list(rows_of(out))) == IMAGES
