"""Which Triton is started, over which models, and what it tells whoever started it."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import psutil
import pytest
import tritonclient.http

from sightline.errors import ServerStartError
from sightline_serving.process import installation
from sightline_serving.process.installation import find_triton, prepare_backends
from sightline_serving.selection.preflight import SelectedModel
from sightline_serving.server import Server, start_server
from sightline_serving.settings import FREE_PORTS
from support.tiny_models import InProcess, publish_tiny

pytestmark = pytest.mark.triton

PIXELS = np.random.default_rng(5).integers(0, 256, (3, 6, 5, 3), np.uint8)


@contextlib.contextmanager
def started(repository: Path, **settings: object) -> Iterator[Server]:
    with start_server(repository, replace(FREE_PORTS, **settings)) as server:  # type: ignore[arg-type]
        yield server


def ask(server: Server, model: str = "tiny", version: str = "") -> npt.NDArray[np.float32]:
    with tritonclient.http.InferenceServerClient(server.http_url.removeprefix("http://")) as client:
        tensor = tritonclient.http.InferInput("pixels", PIXELS.shape, "UINT8")
        tensor.set_data_from_numpy(PIXELS)
        return np.asarray(client.infer(model, [tensor], model_version=version).as_numpy("probabilities"))


def test_every_version_that_the_policy_names_is_served(repository: Path, in_process: InProcess) -> None:
    publish_tiny(repository / ".new", version=2, seed=2)
    shutil.move(repository / ".new" / "tiny" / "2", repository / "tiny" / "2")
    with (repository / "tiny" / "config.pbtxt").open("a", encoding="utf-8") as config:
        config.write("version_policy { all { } }\n")
    with started(repository) as server:
        assert server.models == (SelectedModel("tiny", (1, 2)),)
        for version in ("1", "2"):
            expected = in_process(repository / "tiny" / version / "model.onnx", PIXELS)
            np.testing.assert_allclose(ask(server, version=version), expected, rtol=0, atol=1e-6)


def test_only_the_models_that_were_named_are_served(repository: Path) -> None:
    """The other one is broken: it is not even looked at."""
    (publish_tiny(repository, "broken") / "model.onnx").write_bytes(b"x")
    with started(repository, models=("tiny",)) as server:
        assert server.models == (SelectedModel("tiny", (1,)),)
        with tritonclient.http.InferenceServerClient(server.http_url.removeprefix("http://")) as client:
            assert client.is_model_ready("tiny")
            assert not client.is_model_ready("broken")


def test_folders_that_hold_no_model_keep_nobody_from_starting(repository: Path) -> None:
    """Such as what a version control system, or an export that was killed, leaves."""
    (repository / ".git").mkdir()
    (repository / "half" / "incoming").mkdir(parents=True)
    with started(repository) as server:
        assert server.models == (SelectedModel("tiny", (1,)),)
        assert server.notices[-1] == "left out, since no version was ever published in it: half"


def test_two_servers_live_side_by_side(repository: Path) -> None:
    with started(repository) as one, started(repository) as two:
        ports = [url.split(":")[2].split("/")[0] for server in (one, two) for url in (server.http_url, server.grpc_url, server.metrics_url)]
        assert len(set(ports)) == 6
        np.testing.assert_array_equal(ask(one), ask(two))


def test_a_server_that_is_still_loading_has_its_ports_already(repository: Path) -> None:
    """Triton binds its ports after it has loaded its models. Until then they are held for it."""
    command = [str(Path(sys.executable).parent / "sightline"), "serve", "--repository", str(repository)]
    ports = free_ports()
    command += ["--http-port", str(ports[0]), "--grpc-port", str(ports[1]), "--metrics-port", str(ports[2])]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    try:
        deadline_s = time.monotonic() + 60
        while all(process.poll() is None for process in both) and time.monotonic() < deadline_s:
            threading.Event().wait(0.05)
        loser = both[0] if both[0].poll() is not None else both[1]
        winner = both[1] if loser is both[0] else both[0]
        _, output = loser.communicate(timeout=60)
        assert loser.returncode == 8
        assert output.splitlines()[-1].startswith("error: port ")
        assert "at 127.0.0.1 is taken" in output
        assert winner.stdout is not None
        assert winner.stdout.readline() == f"http    http://127.0.0.1:{ports[0]}\n"
    finally:
        for process in both:
            process.terminate()
            process.communicate(timeout=60)


def free_ports() -> list[int]:
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(3)]
        return [opened.getsockname()[1] for opened in sockets]


def test_the_log_is_appended_to_the_file_that_was_named(repository: Path, tmp_path: Path) -> None:
    log = tmp_path / "triton.log"
    log.write_text("what was there\n")
    with started(repository, log_file=log) as server:
        assert server.log_file == log
    text = log.read_text()
    assert text.startswith("what was there\n")
    assert "successfully loaded 'tiny'" in text


def test_an_old_log_is_not_taken_for_the_reason_of_this_end(repository: Path, tmp_path: Path) -> None:
    log = tmp_path / "triton.log"
    log.write_text("E1121 08:00:00.000000 1 model_lifecycle.cc:642] \"failed to load 'old' version 1: Internal: long ago\"\n")
    (repository / "tiny" / "labels.txt").unlink()
    with pytest.raises(ServerStartError) as caught, started(repository, log_file=log, verify_hashes=False):
        pytest.fail("it started")
    assert "long ago" not in str(caught.value)
    assert str(caught.value).startswith("Triton did not start: model tiny version 1: failed to open text file for read ")


def test_the_command_tells_scripts_what_it_serves_and_people_the_rest(repository: Path) -> None:
    publish_tiny(repository, "other")
    command = [str(Path(sys.executable).parent / "sightline"), "serve", "--repository", str(repository), "--verbose"]
    command += ["--http-port", "0", "--grpc-port", "0", "--metrics-port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        lines = [process.stdout.readline().rstrip("\n") for _ in range(6)]
        announced = [line.split(None, 1) for line in lines]
        assert [key for key, _ in announced] == ["http", "grpc", "metrics", "model", "model", "try"]
        assert announced[3][1] == "other 1"
        assert announced[4][1] == "tiny 1"
        assert announced[5][1] == f"sightline classify other image.png --url {announced[1][1]}"
        with tritonclient.http.InferenceServerClient(announced[0][1].removeprefix("http://")) as client:
            assert client.is_model_ready("tiny")
        talk = []
        for line in process.stderr:
            talk.append(line)
            if line == "Triton 2.51.0 (the nvidia-pytriton wheel) is ready; Ctrl-C stops it\n":
                break
    finally:
        process.terminate()
        out, rest = process.communicate(timeout=60)
    output = "".join(talk) + rest
    assert out == ""
    assert "at least 56 vulnerabilities fixed in later releases" in output
    assert "Triton 2.51.0 (the nvidia-pytriton wheel) is ready; Ctrl-C stops it" in output
    assert output.endswith("Triton has stopped\n")
    assert "successfully loaded 'tiny'" in output, "--verbose shows Triton's log"


# The Triton on PATH, as in NVIDIA's container. It is the wheel's, under another roof, since no test can assume a container.


@pytest.fixture
def container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    wheel = installation._wheel()
    assert wheel is not None
    root = tmp_path / "opt" / "tritonserver"
    shutil.copytree(wheel.backends, root / "backends")
    shutil.copy(wheel.stub, root / "backends" / "python")
    (root / "bin").mkdir()
    shutil.copy(wheel.binary, root / "bin")
    monkeypatch.setenv("PATH", f"{root / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("LD_LIBRARY_PATH", os.pathsep.join(map(str, wheel.libraries)))
    return root


def test_a_triton_on_path_is_preferred_and_lent_our_backend_if_it_has_none(
    container: Path, repository: Path, in_process: InProcess
) -> None:
    with started(repository) as server:
        assert Path(psutil.Process(server.pid).exe()) == container / "bin" / "tritonserver"
        assert server.triton == f"2.51.0 ({container}/bin/tritonserver)"
        assert server.notices == ()
        np.testing.assert_allclose(ask(server), in_process(repository / "tiny/1/model.onnx", PIXELS), rtol=0, atol=1e-6)


def test_a_triton_on_path_keeps_its_own_onnx_backend(container: Path, repository: Path, tmp_path: Path) -> None:
    (container / "backends" / "onnxruntime").mkdir()
    triton = find_triton(repository)
    assert triton.binary == container / "bin" / "tritonserver"
    assert not triton.bundled
    assert prepare_backends(triton, tmp_path / "unused") == container / "backends"


def test_the_wheels_own_binary_on_path_is_still_the_wheels(repository: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    wheel = installation._wheel()
    assert wheel is not None
    (tmp_path / "tritonserver").symlink_to(wheel.binary)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert find_triton(repository) == wheel
    assert wheel.bundled
