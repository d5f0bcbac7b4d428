"""A server of the race while it runs: started, held to the right answer, measured as the tree of its processes, and ended in every case."""

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from peers.contenders import Contender, Launch, variables_of
from peers.models import IMAGES, Model
from peers.process_tree import cpu_s, marked, pss_bytes, tree
from peers.shapes import Shape
from peers.wire import Line, NoAnswerError, Request, WrongAnswerError, demand, requests

START_S: Final = 120.0
STOP_S: Final = 15.0
ASK_S: Final = 60.0
MARKER: Final = "SIGHTLINE_RACE"
MIB: Final = 1024 * 1024


class StartError(Exception):
    """A server was not there in time, or ended by itself; it says what it said last."""


@dataclass(frozen=True)
class Running:
    """A server that has given the right answer to every image."""

    contender: Contender
    model: Model
    port: int
    grpc_port: int
    startup_s: float
    """From the start of its process to its first right answer."""
    _pid: int
    _marker: str

    def memory_mib(self) -> float:
        """PSS of all its processes."""
        return pss_bytes(tree(self._pid, self._marker)) / MIB

    def cpu_s(self) -> dict[int, float]:
        """CPU seconds of each of its processes so far."""
        return cpu_s(tree(self._pid, self._marker))

    def check(self, threads: int = 1, images: int = IMAGES) -> None:
        """Ask about so many images in each thread, from another one on; raise WrongAnswerError if an answer is not the published one."""

        def ask_all(first: int) -> None:
            line = Line(self.port, ASK_S)
            try:
                asked = requests(self.contender.wire, self.model)
                for number in range(images):
                    place = (2 * first + number) % len(asked)
                    demand(line.ask(self.contender.wire, asked[place]), self.model.answers[place], self.model.tolerance)
            except OSError as error:
                raise WrongAnswerError(f"no answer: {error}") from error
            finally:
                line.close()

        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(ask_all, range(threads)))


@contextlib.contextmanager
def running(contender: Contender, python: Path, model: Model, shape: Shape, first: Request | None = None) -> Iterator[Running]:
    """Start a server, wait for its first right answer, and end all its processes with the block.

    With `first`, a request of another kind, it is enough that this is answered.
    Raises StartError if it is not there in time, WrongAnswerError if it answers wrongly.
    """
    marker = f"{MARKER}={secrets.token_hex(8)}"
    port, grpc_port = free_ports()
    with tempfile.TemporaryDirectory(prefix="sightline-race-", ignore_cleanup_errors=True) as folder_name:
        folder = Path(folder_name)
        launch = Launch(python, model, shape, port, grpc_port, folder)
        environment = {**os.environ, **variables_of(contender, launch), MARKER: marker.partition("=")[2]}
        log = folder / "log"
        with log.open("wb") as output:
            began_s = time.perf_counter()
            process = subprocess.Popen(
                contender.command(launch), env=environment, cwd=folder, stdout=output, stderr=output, stdin=subprocess.DEVNULL
            )
        try:
            _wait_for_answer(process, contender, model, port, log, first)
            startup_s = time.perf_counter() - began_s
            server = Running(contender, model, port, grpc_port, startup_s, process.pid, marker)
            if first is None:
                server.check()
            yield server
        finally:
            _end(process, marker)


def free_ports() -> tuple[int, int]:
    """Return two ports of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        return one.getsockname()[1], other.getsockname()[1]


def _wait_for_answer(
    process: "subprocess.Popen[bytes]", contender: Contender, model: Model, port: int, log: Path, first: Request | None
) -> None:
    """Ask until there is a right answer: a server that listens already may still load its model."""
    asked = first or requests(contender.wire, model)[0]
    line = Line(port, ASK_S)
    deadline_s, last = time.monotonic() + START_S, "it never listened"
    try:
        while time.monotonic() < deadline_s:
            if process.poll() is not None:
                raise StartError(f"it ended with exit code {process.returncode}: {tail(log)}")
            try:
                answer = line.ask(contender.wire, asked)
                if first is None:
                    demand(answer, model.answers[0], model.tolerance)
            except OSError:
                time.sleep(0.01)
            except NoAnswerError as error:
                last = str(error)
                time.sleep(0.05)
            else:
                return
    finally:
        line.close()
    raise StartError(f"no right answer within {START_S:.0f} s ({last}): {tail(log)}")


def tail(log: Path, most: int = 300) -> str:
    """Return the last words of a log, in one line."""
    return " ".join(log.read_bytes()[-4 * most :].decode("utf-8", "replace").split())[-most:] or "it said nothing"


def _end(process: "subprocess.Popen[bytes]", marker: str) -> None:
    """Ask the first process to end, then end what is left of its tree."""
    process.send_signal(signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOP_S)
    process.poll()
    left = marked(marker)
    for each in left:
        with contextlib.suppress(psutil.Error):
            each.kill()
    psutil.wait_procs(left, timeout=STOP_S)
    process.wait(STOP_S)
