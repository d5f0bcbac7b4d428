"""A Triton process on its leash: started, asked whether it still runs, stopped within a bounded time, swept up after."""

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
from typing import IO, Any, Final

from sightline.errors import ServerStartError
from sightline_serving.process import supervisor as leash

KILLED_S: Final = 5.0
"""What is killed has so long to disappear."""
ANSWERED: Final = b"All models are stopped, unloading models"
"""Triton logs it when no request is in flight any more."""


class Running:
    """A Triton process (`pid`), and the leash that it is on."""

    def __init__(self, pid: int, leash: subprocess.Popen[bytes], log: Path, others: set[Path]) -> None:
        self.pid, self.leash, self.log = pid, leash, log
        self.others = others
        """Worker environments (`leash.WORKER_ENVIRONMENTS`) of other Tritons."""
        self.environments: set[Path] = set()
        self._how: str | None = None

    def ended(self, timeout_s: float | None = None) -> str | None:
        """How it ended ("with exit code 1", "killed by SIGKILL" …), waiting for that up to `timeout_s`; None if it still runs."""
        try:
            self.leash.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None
        if self._how is None:
            assert self.leash.stdout is not None
            self._how = _in_words(self.leash.stdout.read().decode())
        return self._how

    def watch_workers(self) -> None:
        """From now on, when all of Triton's workers have started, a worker that dies ends Triton. Returns when that is so."""
        assert self.leash.stdin is not None
        assert self.leash.stdout is not None
        self.environments = leash.worker_environments() - self.others
        with contextlib.suppress(BrokenPipeError):
            self.leash.stdin.write(b"ready\n")
            self.leash.stdin.flush()
        said = _line(self.leash.stdout)
        if said != "watching":
            self._how = _in_words(said)


@contextlib.contextmanager
def run(
    command: Sequence[str],
    environment: Mapping[str, str],
    log: Path,
    *,
    shm_prefix: str,
    folders: Sequence[Path],
    grace_s: float,
) -> Iterator[Running]:
    """Run `command`, its output appended to `log`, until the block ends: then it has `grace_s` seconds to stop before it is killed.

    Shared memory named `shm_prefix`… and `folders` are removed in any case. Raises ServerStartError if it cannot be run.
    """
    settings: dict[str, Any] = {
        "command": list(command),
        "parent": os.getpid(),
        "grace_s": grace_s,
        "shm_prefix": shm_prefix,
        "folders": [str(folder) for folder in folders],
    }
    others = leash.worker_environments()
    with log.open("ab") as output:
        holder = subprocess.Popen(
            [sys.executable, "-I", "-S", str(Path(leash.__file__).resolve()), json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=output,
            env=dict(environment),
            # In a session of its own: Ctrl-C reaches whoever started it, who then stops it in order.
            start_new_session=True,
        )
    assert holder.stdout is not None
    try:
        first = _line(holder.stdout)
        if not first.startswith("pid "):
            raise ServerStartError(f"the process that holds Triton ended with code {holder.wait(KILLED_S)} before it could start it")
        running = Running(int(first.removeprefix("pid ")), holder, log, others)
        try:
            yield running
        finally:
            _stop(running, grace_s)
            leash.remove_environments(running.environments)
    finally:
        _kill(holder)
        leash.sweep(shm_prefix, folders)


def _in_words(said: str) -> str:
    match said.split():
        case ["exit", code]:
            return f"with exit code {code}"
        case ["signal", number]:
            return f"killed by {signal.Signals(int(number)).name}"
        case ["worker"]:
            return "since one of its workers died"
        case ["worker", *model]:
            return f"since a worker of its model {' '.join(model)} died"
    return "together with the process that held it"


def _line(pipe: IO[bytes]) -> str:
    """One line, read byte by byte: a buffered reader would swallow what comes after it."""
    read = b""
    while not read.endswith(b"\n"):
        byte = os.read(pipe.fileno(), 1)
        if not byte:
            break
        read += byte
    return read.decode().strip()


def _stop(running: Running, grace_s: float) -> None:
    assert running.leash.stdin is not None
    deadline_s = time.monotonic() + grace_s + KILLED_S
    try:
        with running.log.open("rb") as log:
            log.seek(0, os.SEEK_END)
            with contextlib.suppress(BrokenPipeError):
                running.leash.stdin.close()
            said = b""
            # Once every request is answered, what is left to do is to free memory. Triton takes seconds for that, the system none.
            while running.ended(0.05) is None and ANSWERED not in said and time.monotonic() < deadline_s:
                said = said[-len(ANSWERED) :] + log.read(65536)
    finally:
        # Also when whoever stops it asks a second time: then they want it now.
        _kill_group(running.pid)


def _kill(holder: subprocess.Popen[bytes]) -> None:
    try:
        # The leash ends by itself as soon as Triton has.
        holder.wait(KILLED_S)
    except BaseException as error:
        _kill_group(holder.pid)
        holder.wait(KILLED_S)
        if not isinstance(error, subprocess.TimeoutExpired):
            raise
    finally:
        for pipe in (holder.stdin, holder.stdout):
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
        with log.open("rb") as opened:
            opened.seek(start)
            while True:
                last = done.wait(0.2)
                while piece := opened.read(65536):
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
