"""Keeps Triton from outliving whoever started it: that may end in any way, kill -9 too, and neither Triton nor its workers stay behind.

The supervisor is a process between the two, run by path and made of the standard library alone. Its stdin is a pipe from the starting
process: when the pipe closes, by intent or by death, the supervisor asks Triton to stop, and kills it if it does not. Linux's
parent-death signal alone would not do: it fires when the starting *thread* ends, and does not reach Triton's own children. It is used
here, where there is one thread, against the death of the supervisor itself.

Once told that Triton is ready, the supervisor watches Triton's workers too. Triton 2.51 does not start a dead one again, and calls itself
ready while every request to it fails; so the supervisor then ends Triton.

On stdout go `pid <n>`, then `watching`, and, at the end, `exit <n>`, `signal <n>` or `worker <model>`.
"""

import contextlib
import ctypes
import glob
import json
import os
import select
import shutil
import signal
import sys
import time
from collections.abc import Iterable
from pathlib import Path

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
"""Both from Linux's prctl(2)."""

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where Linux keeps POSIX shared memory, not a temporary file of ours
WORKER_ENVIRONMENTS = "/tmp/python_env_*"  # noqa: S108 - Triton's choice
"""Triton's Python backend makes one such folder a start, wherever TMPDIR points, and removes it only if it has time to end by itself."""
REAPING_S = 2.0
"""Killed processes need no longer than that to disappear."""


def supervise(command: list[str], *, parent: int, grace_s: float) -> str:
    """Run `command` until it ends, `parent` does, or one of its workers does. Returns how it ended."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    wakeups, wakeup_writer = os.pipe()
    os.set_blocking(wakeup_writer, False)
    signal.set_wakeup_fd(wakeup_writer)
    stop_signals: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda number, _: stop_signals.append(number))
    signal.signal(signal.SIGCHLD, lambda *_: None)

    others = worker_environments()
    environments: set[Path] = set()
    triton = os.fork()
    if triton == 0:
        _become(command, libc)
    _report(f"pid {triton}")

    commands = sys.stdin.fileno()
    workers: dict[int, str] = {}
    dead_worker: str | None = None
    stopping = False
    deadline_s: float | None = None
    watched = [commands, wakeups]
    while os.waitid(os.P_PID, triton, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        readable, _, _ = select.select([*watched, *workers], [], [], 0.2 if deadline_s else 1.0)
        if wakeups in readable:
            os.read(wakeups, 4096)
        if commands in readable:
            if os.read(commands, 4096):
                workers = _workers(triton)
                environments = worker_environments() - others
                _report("watching")
            else:
                watched.remove(commands)
                stopping = True
        dead_worker = next((workers[worker] for worker in readable if worker in workers), dead_worker)
        stopping = stopping or bool(stop_signals) or dead_worker is not None or os.getppid() != parent
        if deadline_s is None and stopping:
            workers = {}  # from now on they are meant to end
            deadline_s = time.monotonic() + grace_s
            os.kill(triton, signal.SIGTERM)
        elif deadline_s is not None and time.monotonic() > deadline_s:
            os.kill(triton, signal.SIGKILL)
    # Triton is a zombie still, so its process group cannot be anyone else's yet.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(triton, signal.SIGKILL)
    end = _reap(triton)
    remove_environments(environments or worker_environments() - others)
    return end if dead_worker is None else f"worker {dead_worker}"


def sweep(prefix: str, folders: Iterable[str | Path]) -> None:
    """Remove what a killed Triton leaves: its shared memory, whose names begin with `prefix`, and temporary folders."""
    for file in SHARED_MEMORY.glob(f"{prefix}*"):
        file.unlink(missing_ok=True)
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def worker_environments() -> set[Path]:
    """Return the folders WORKER_ENVIRONMENTS that this user's Tritons have made."""
    user = os.getuid()
    environments = set()
    for folder in map(Path, glob.glob(WORKER_ENVIRONMENTS)):
        with contextlib.suppress(OSError):
            if folder.lstat().st_uid == user:
                environments.add(folder)
    return environments


def remove_environments(folders: Iterable[Path]) -> None:
    """Remove those that are empty. Ours are, since no published model has a Python environment of its own."""
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()


def _workers(triton: int) -> dict[int, str]:
    """A file descriptor for each of Triton's children, readable when it has died (pidfd_open(2)), and the model that it runs.

    Linux before 5.3 has none; then nothing is watched.
    """
    workers = {}
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, AttributeError):
            # Fields of proc(5)'s stat; the second, a name in parentheses, may hold anything.
            if int((process / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[1]) != triton:
                continue
            # A worker's first argument is <repository>/<model>/<version>/<file>; of one that has just died nobody can tell any more.
            arguments = (process / "cmdline").read_text(encoding="utf-8", errors="replace").split("\0")
            workers[os.pidfd_open(int(process.name))] = Path(arguments[1]).parent.parent.name if len(arguments) > 1 else ""
    return workers


def _become(command: list[str], libc: ctypes.CDLL) -> None:
    try:
        os.setpgid(0, 0)
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(2, 1)
        os.execv(command[0], command)  # noqa: S606 - without a shell is what we want
    except OSError as error:
        os.write(2, f"error: cannot run {command[0]}: {error.strerror}\n".encode())
    os._exit(127)


def _reap(triton: int) -> str:
    end = "signal 9"
    deadline_s = time.monotonic() + REAPING_S
    while time.monotonic() < deadline_s:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            break
        if pid == triton:
            code = os.waitstatus_to_exitcode(status)
            end = f"exit {code}" if code >= 0 else f"signal {-code}"
        elif pid == 0:
            select.select([], [], [], 0.01)
    return end


def _report(line: str) -> None:
    with contextlib.suppress(BrokenPipeError):
        os.write(1, f"{line}\n".encode())


def main() -> None:
    """Read the settings from the first argument (JSON), supervise Triton, sweep, report how it ended."""
    settings = json.loads(sys.argv[1])
    parent = settings["parent"]
    try:
        end = supervise(settings["command"], parent=parent, grace_s=settings["grace_s"])
    finally:
        # A parent that lives still wants to read Triton's log in there.
        sweep(settings["shm_prefix"], settings["folders"] if os.getppid() != parent else ())
    _report(end)


if __name__ == "__main__":
    main()
