"""A Triton that dies is started again where it was, with its true cause told, and not for ever."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from sightline import Classifier
from sightline.errors import ContractError, ServerStartError
from sightline_serving import restarting
from sightline_serving.restarting import keep_serving
from sightline_serving.server import Server
from sightline_serving.settings import FREE_PORTS

pytestmark = pytest.mark.triton

SIGHTLINE = str(Path(sys.executable).parent / "sightline")
PIXELS = np.random.default_rng(0).integers(0, 256, (4, 6, 5, 3), dtype=np.uint8)


class Serving:
    """A `sightline serve` process that starts Triton again."""

    def __init__(self, repository: Path) -> None:
        self.process = subprocess.Popen(
            [SIGHTLINE, "serve", "--repository", repository, "--http-port", "0", "--grpc-port", "0", "--metrics-port", "0"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.announced = dict(self.process.stdout.readline().split(None, 1) for _ in range(5))
        self.http, self.grpc = self.announced["http"].strip(), self.announced["grpc"].strip()

    def triton(self) -> psutil.Process:
        """The one that runs now."""
        (supervisor,) = psutil.Process(self.process.pid).children()
        (triton,) = supervisor.children()
        return triton

    def line(self, pattern: str) -> str:
        """The next line on stderr that matches."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if re.search(pattern, line):
                return line.rstrip("\n")
        raise AssertionError(f"it ended before {pattern!r}")


@pytest.fixture
def serving(repository: Path) -> Iterator[Serving]:
    started = Serving(repository)
    try:
        yield started
    finally:
        started.process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            started.process.communicate(timeout=60)
        started.process.kill()


def post(url: str, body: bytes, content_type: str) -> None:
    request = urllib.request.Request(f"{url}/v2/models/tiny/infer", body, {"Content-Type": content_type})
    with contextlib.suppress(urllib.error.URLError, ConnectionError):
        urllib.request.urlopen(request, timeout=30).read()


def form(serving: Serving) -> None:
    """What curl --data-binary sends unless it is told otherwise."""
    post(serving.http, bytes(6_000_000), "application/x-www-form-urlencoded")


def endless_shape(serving: Serving) -> None:
    tensor = {"name": "pixels", "datatype": "UINT8", "shape": [9223372036854775807, 6, 5, 3], "data": [1]}
    post(serving.http, json.dumps({"inputs": [tensor]}).encode(), "application/json")


def worker_killed(serving: Serving) -> None:
    serving.triton().children()[0].kill()


@pytest.mark.parametrize(
    ("end", "cause"),
    [
        (form, "killed by SIGSEGV (it crashed: a request can do that to Triton 2.51)"),
        (endless_shape, "killed by SIGABRT (it gave up: a request can do that to Triton 2.51)"),
        (worker_killed, "since a worker of its model tiny died"),
    ],
)
def test_it_is_started_again_where_it_was_and_clients_that_wait_go_on(serving: Serving, end: Callable[[Serving], None], cause: str) -> None:
    failures: list[BaseException] = []
    stop, answered = threading.Event(), {"http": 0, "grpc": 0}
    with Classifier("tiny", serving.http, wait_s=60) as http, Classifier("tiny", serving.grpc, wait_s=60) as grpc:
        expected = http.probabilities_of_pixels(PIXELS)

        def call(protocol: str, classifier: Classifier) -> None:
            try:
                while not stop.is_set():
                    # A dying worker takes its request with it, which Triton calls a failure of the model.
                    assert np.array_equal(classifier.probabilities_of_pixels(PIXELS), expected)
                    answered[protocol] += 1
            except BaseException as error:
                failures.append(error)

        callers = [] if end is worker_killed else [threading.Thread(target=call, args=pair) for pair in (("http", http), ("grpc", grpc))]
        for caller in callers:
            caller.start()
        died = serving.triton().pid
        end(serving)
        told = serving.line("is started again")
        assert told.startswith(f"Triton (process {died}) ended, {cause}"), told
        assert "CUDA" not in told
        assert told.endswith(". It is started again in 0.5 s (1 of at most 5 times in 10 minutes)")
        again = serving.line("is ready again")
        assert again == f"Triton 2.51.0 (the nvidia-pytriton wheel) is ready again (process {serving.triton().pid})"
        before = dict(answered)
        deadline_s = time.monotonic() + 60
        while callers and any(answered[protocol] == before[protocol] for protocol in answered) and time.monotonic() < deadline_s:
            time.sleep(0.05)
        assert np.array_equal(http.probabilities_of_pixels(PIXELS), expected)
        assert np.array_equal(grpc.probabilities_of_pixels(PIXELS), expected)
        stop.set()
        for caller in callers:
            caller.join(60)
    assert failures == []
    assert not callers or all(answered[protocol] > before[protocol] for protocol in answered)


def test_it_gives_up_when_it_dies_again_and_again(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restarting, "FIRST_PAUSE_S", 0.001)
    pids, ports, notices = list[int](), list[str](), list[str]()

    def killed(server: Server) -> None:
        pids.append(server.pid)
        ports.append(server.grpc_url)
        os.kill(server.pid, signal.SIGKILL)

    with pytest.raises(ServerStartError) as given_up:
        keep_serving(repository, FREE_PORTS, killed, notices.append)
    assert str(given_up.value) == (
        "Triton died 6 times within 10 minutes and is not started again. The last time: "
        f"Triton (process {pids[-1]}) ended, killed by SIGKILL (by somebody, or by the kernel for want of memory: see dmesg)"
    )
    assert given_up.value.exit_code == 8
    assert (len(pids), len(set(pids)), len(set(ports))) == (6, 6, 1)
    assert [re.sub(r".*in ([0-9.]+) s \((\d).*", r"\1 \2", notice) for notice in notices] == [
        "0.001 1",
        "0.002 2",
        "0.004 3",
        "0.008 4",
        "0.016 5",
    ]


def test_a_death_long_ago_does_not_count(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restarting, "FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(restarting, "WITHIN_S", 0.0)
    servers: list[int] = []

    def killed(server: Server) -> None:
        servers.append(server.pid)
        if len(servers) == 8:
            raise KeyboardInterrupt
        os.kill(server.pid, signal.SIGKILL)

    with pytest.raises(KeyboardInterrupt):
        keep_serving(repository, FREE_PORTS, killed)


def test_a_first_start_that_fails_is_not_tried_again(tmp_path: Path) -> None:
    notices: list[str] = []
    with pytest.raises(ServerStartError, match="there is no model repository at"):
        keep_serving(tmp_path / "none", FREE_PORTS, lambda _: None, notices.append)
    assert notices == []


def test_what_was_changed_meanwhile_is_not_served(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restarting, "FIRST_PAUSE_S", 0.001)

    def changed(server: Server) -> None:
        file = repository / "tiny" / "1" / "model.onnx"
        file.chmod(0o644)
        file.write_bytes(file.read_bytes() + b"!")
        os.kill(server.pid, signal.SIGKILL)

    with pytest.raises(ContractError, match=r"model\.onnx was changed after it was published"):
        keep_serving(repository, FREE_PORTS, changed)
