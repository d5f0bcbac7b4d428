"""A Triton process under its supervisor: started, asked whether it still runs, stopped within a bounded time, swept up after."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Final

from sightline.errors import ServerStartError
from sightline_serving.process import supervisor

KILLED_S: Final = 5.0
"""A killed process has so long to disappear."""
KILLED_BY: Final = {
    "SIGKILL": " (by somebody, or by the kernel for want of memory: see dmesg)",
    "SIGSEGV": " (it crashed: a request can do that to Triton 2.51)",
    "SIGABRT": " (it gave up: a request can do that to Triton 2.51)",
}
"""What else is to be said of a signal."""
ALL_ANSWERED: Final = b"All models are stopped, unloading models"
"""Triton logs it when no request is in flight any more."""


class TritonProcess:
    """A running Triton (`pid`), and the process that supervises it."""

    def __init__(self, pid: int, supervisor_process: subprocess.Popen[bytes], log: Path, other_environments: set[Path]) -> None:
        self.pid, self.supervisor, self.log = pid, supervisor_process, log
        self.other_environments = other_environments
        """Worker environments (`supervisor.WORKER_ENVIRONMENTS`) of other Tritons."""
        self.environments: set[Path] = set()
        self._end: str | None = None

    def ended(self, timeout_s: float | None = None) -> str | None:
        """Return how it ended ("with exit code 1", "killed by SIGKILL" …), waiting for that up to `timeout_s`; None if it still runs."""
        try:
            self.supervisor.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None
        if self._end is None:
            assert self.supervisor.stdout is not None
            self._end = _in_words(self.supervisor.stdout.read().decode())
        return self._end

    def watch_workers(self) -> None:
        """From now on, when all of Triton's workers have started, a worker that dies ends Triton. Returns when that is so."""
        assert self.supervisor.stdin is not None
        assert self.supervisor.stdout is not None
        self.environments = supervisor.worker_environments() - self.other_environments
        with contextlib.suppress(BrokenPipeError):
            self.supervisor.stdin.write(b"ready\n")
            self.supervisor.stdin.flush()
        report = _line(self.supervisor.stdout)
        if report != "watching":
            self._end = _in_words(report)


@contextlib.contextmanager
def run(
    command: Sequence[str],
    environment: Mapping[str, str],
    log: Path,
    *,
    shm_prefix: str,
    folders: Sequence[Path],
    grace_s: float,
) -> Iterator[TritonProcess]:
    """Run `command`, its output appended to `log`, until the block ends: then it has `grace_s` seconds to stop before it is killed.

    Shared memory named `shm_prefix`… and `folders` are removed in any case. Raises ServerStartError if it cannot be run.
    """
    settings: dict[str, object] = {
        "command": list(command),
        "parent": os.getpid(),
        "grace_s": grace_s,
        "shm_prefix": shm_prefix,
        "folders": [str(folder) for folder in folders],
    }
    other_environments = supervisor.worker_environments()
    with log.open("ab") as output:
        supervisor_process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(Path(supervisor.__file__).resolve()), json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=output,
            env=dict(environment),
            # In a session of its own: Ctrl-C reaches whoever started it, who then stops it in order.
            start_new_session=True,
        )
    assert supervisor_process.stdout is not None
    try:
        first = _line(supervisor_process.stdout)
        if not first.startswith("pid "):
            code = supervisor_process.wait(KILLED_S)
            raise ServerStartError(f"the process that supervises Triton ended with code {code} before it could start it")
        triton = TritonProcess(int(first.removeprefix("pid ")), supervisor_process, log, other_environments)
        try:
            yield triton
        finally:
            _stop(triton, grace_s)
            supervisor.remove_environments(triton.environments)
    finally:
        _end_supervisor(supervisor_process)
        supervisor.sweep(shm_prefix, folders)


def _in_words(report: str) -> str:
    match report.split():
        case ["exit", code]:
            return f"with exit code {code}"
        case ["signal", number]:
            name = signal.Signals(int(number)).name
            return f"killed by {name}{KILLED_BY.get(name, '')}"
        case ["worker"]:
            return "since one of its workers died"
        case ["worker", *model]:
            return f"since a worker of its model {' '.join(model)} died"
    return "together with the process that supervised it"


def _line(pipe: IO[bytes]) -> str:
    """One line, read byte by byte: a buffered reader would swallow what comes after it."""
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(pipe.fileno(), 1)
        if not byte:
            break
        line += byte
    return line.decode().strip()


def _stop(triton: TritonProcess, grace_s: float) -> None:
    assert triton.supervisor.stdin is not None
    deadline_s = time.monotonic() + grace_s + KILLED_S
    try:
        with triton.log.open("rb") as log:
            log.seek(0, os.SEEK_END)
            with contextlib.suppress(BrokenPipeError):
                triton.supervisor.stdin.close()
            tail = b""
            # Once every request is answered, what is left to do is to free memory. Triton takes seconds for that, the system none.
            while triton.ended(0.05) is None and ALL_ANSWERED not in tail and time.monotonic() < deadline_s:
                tail = tail[-len(ALL_ANSWERED) :] + log.read(65536)
    finally:
        # Also when whoever stops it asks a second time: then they want it now.
        _kill_group(triton.pid)


def _end_supervisor(process: subprocess.Popen[bytes]) -> None:
    try:
        # The supervisor ends by itself as soon as Triton has.
        process.wait(KILLED_S)
    except BaseException as error:
        _kill_group(process.pid)
        process.wait(KILLED_S)
        if not isinstance(error, subprocess.TimeoutExpired):
            raise
    finally:
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


def _kill_group(leader: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)


@contextlib.contextmanager
def follow(log: Path, start: int, out: IO[bytes]) -> Iterator[None]:
    """Copy what is appended to `log` after byte `start` to `out` while the block runs, a piece at a time."""
    done = threading.Event()

    def copy() -> None:
        with log.open("rb") as file:
            file.seek(start)
            while True:
                last = done.wait(0.2)
                while piece := file.read(65536):
                    out.write(piece)
                    out.flush()
                if last:
                    return

    copier = threading.Thread(target=copy, name="triton log", daemon=True)
    copier.start()
    try:
        yield
    finally:
        done.set()
        copier.join(KILLED_S)
