"""However it ends, nothing stays: no Triton, no worker, no shared memory, no temporary folder. With real processes and real signals."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import tritonclient.http

from sightline.errors import ServerStartError
from sightline_serving.process import supervisor
from sightline_serving.server import Server, start_server
from sightline_serving.settings import FREE_PORTS
from support.tiny_models import About, Publish

pytestmark = pytest.mark.triton

PATIENCE_S = 60.0
KILLED = "killed by SIGKILL (by somebody, or by the kernel for want of memory: see dmesg)"
FREE = ["--http-port", "0", "--grpc-port", "0", "--metrics-port", "0"]
SIGHTLINE = str(Path(sys.executable).parent / "sightline")


class Serve:
    """A `sightline serve` process, its Triton and the workers, once it has said what it serves."""

    def __init__(self, process: subprocess.Popen[str], repository: Path, others: set[Path]) -> None:
        self.process, self.repository, self.others = process, repository, others

    def ready(self) -> "Serve":
        assert self.process.stdout is not None
        self.told = dict(self.process.stdout.readline().split(None, 1) for _ in range(5))
        serve = psutil.Process(self.process.pid)
        (self.supervisor,) = serve.children()
        (self.triton,) = self.supervisor.children()
        self.workers = self.triton.children()
        assert len(self.workers) == 2
        arguments = self.triton.cmdline()
        (self.shared_memory,) = [argument.partition("name=")[2] for argument in arguments if argument.startswith("--backend-config=")]
        (backends,) = [Path(argument.partition("=")[2]) for argument in arguments if argument.startswith("--backend-directory=")]
        self.temporary = backends.parent
        assert self.temporary.is_dir()
        assert list(Path("/dev/shm").glob(f"{self.shared_memory}*"))
        assert worker_environments() - self.others
        return self

    def left(self) -> list[object]:
        """What has not ended yet."""
        living = [
            process
            for process in [self.supervisor, self.triton, *self.workers]
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE
        ]
        files = [*Path("/dev/shm").glob(f"{self.shared_memory}*"), *[path for path in [self.temporary] if path.exists()]]
        return [*living, *files, *(worker_environments() - self.others)]

    def end(self) -> tuple[int, str]:
        """Exit code and stderr."""
        _, output = self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode, output


def worker_environments() -> set[Path]:
    return set(Path("/tmp").glob("python_env_*"))


def eventually(what: Callable[[], bool]) -> bool:
    deadline_s = time.monotonic() + PATIENCE_S
    while not what():
        if time.monotonic() > deadline_s:
            return False
        threading.Event().wait(0.05)
    return True


@pytest.fixture
def serve(tmp_path: Path, publish: Publish) -> Iterator[Serve]:
    folder = tmp_path / "models"
    publish(folder, instances=2)
    others = worker_environments()
    process = subprocess.Popen(
        [SIGHTLINE, "serve", "--repository", str(folder), "--restart", "never", *FREE],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    started = Serve(process, folder, others)
    try:
        yield started
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.communicate(timeout=PATIENCE_S)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_it_stops_cleanly_when_it_is_asked_to(serve: Serve, number: signal.Signals) -> None:
    serve.ready()
    serve.process.send_signal(number)
    code, output = serve.end()
    assert code == 0
    assert output.endswith("Triton has stopped\n")
    assert serve.left() == []


def test_ctrl_c_while_models_load_stops_it_too(serve: Serve, about: About) -> None:
    assert eventually(lambda: any(process.name() == "tritonserver" for process in about(serve.repository)))
    serve.process.send_signal(signal.SIGINT)
    code, output = serve.end()
    assert code == 0
    assert output == "Triton has stopped\n"
    assert about(serve.repository) == []


def test_a_second_ctrl_c_kills_it(serve: Serve) -> None:
    """A client that keeps its connection open makes Triton wait for it: the case in which people press Ctrl-C again."""
    serve.ready()
    log = serve.temporary / "triton.log"
    with tritonclient.http.InferenceServerClient(serve.told["http"].strip().removeprefix("http://")) as client:
        assert client.is_server_ready()
        serve.process.send_signal(signal.SIGINT)
        assert eventually(lambda: "Waiting for in-flight" in log.read_text() or "HTTP service connections" in log.read_text())
        serve.process.send_signal(signal.SIGINT)
        code, output = serve.end()
    assert code == 130
    assert output.endswith("interrupted\n")
    assert serve.left() == []


def test_a_client_that_stays_connected_cannot_keep_it_from_stopping(serve: Serve) -> None:
    serve.ready()
    with tritonclient.http.InferenceServerClient(serve.told["http"].strip().removeprefix("http://")) as client:
        assert client.is_server_ready()
        serve.process.send_signal(signal.SIGTERM)
        code, _ = serve.end()
    assert code == 0
    assert serve.left() == []


def test_killing_serve_leaves_nothing(serve: Serve) -> None:
    serve.ready()
    serve.process.kill()
    assert eventually(lambda: serve.left() == []), f"left: {serve.left()}"


def test_killing_triton_ends_serve_with_exit_code_8(serve: Serve) -> None:
    serve.ready()
    serve.triton.kill()
    code, output = serve.end()
    assert code == 8
    assert output.splitlines()[-1] == f"error: Triton (process {serve.triton.pid}) ended, {KILLED}"
    assert serve.left() == []


def test_killing_a_worker_ends_serve_with_exit_code_8(serve: Serve) -> None:
    """Triton would go on, call itself ready and fail every second request."""
    serve.ready()
    serve.workers[0].kill()
    code, output = serve.end()
    assert code == 8
    assert f"error: Triton (process {serve.triton.pid}) ended, since a worker of its model tiny died" in output.splitlines()[-1]
    assert serve.left() == []


def test_killing_the_supervisor_ends_everything(serve: Serve) -> None:
    serve.ready()
    serve.supervisor.kill()
    code, output = serve.end()
    assert code == 8
    assert output.splitlines()[-1] == f"error: Triton (process {serve.triton.pid}) ended, together with the process that supervised it"
    assert eventually(lambda: serve.left() == []), f"left: {serve.left()}"


def test_killing_serve_and_the_supervisor_ends_triton_and_its_workers(serve: Serve) -> None:
    """Two kills at once leave a temporary folder, but no process."""
    serve.ready()
    serve.supervisor.suspend()
    serve.process.kill()
    serve.supervisor.kill()
    assert eventually(lambda: not [remaining for remaining in serve.left() if isinstance(remaining, psutil.Process)])
    supervisor.sweep(serve.shared_memory, [serve.temporary])


def test_a_server_outlives_the_thread_that_started_it(repository: Path) -> None:
    """Linux's parent-death signal goes off when a thread ends: the supervisor is there so that ours does not."""
    stack = contextlib.ExitStack()
    servers: list[Server] = []
    with stack:
        thread = threading.Thread(target=lambda: servers.append(stack.enter_context(start_server(repository, FREE_PORTS))))
        thread.start()
        thread.join()
        (server,) = servers
        server.wait(2)
        assert psutil.pid_exists(server.pid)
    assert not psutil.pid_exists(server.pid)


def test_an_error_in_the_block_stops_triton(repository: Path, about: About) -> None:
    with pytest.raises(ZeroDivisionError), start_server(repository, FREE_PORTS):
        1 / 0  # noqa: B018
    assert about(repository) == []


def test_wait_tells_that_triton_died(repository: Path) -> None:
    with start_server(repository, FREE_PORTS) as server:
        server.wait(0.1)
        os.kill(server.pid, signal.SIGKILL)
        with pytest.raises(ServerStartError, match=rf"^Triton \(process {server.pid}\) ended, {re.escape(KILLED)}$"):
            server.wait(PATIENCE_S)
