"""Keeps Triton on a leash: whoever started it may end in any way, kill -9 too, and neither Triton nor its workers stay behind.

A process between the two, run by path and made of the standard library alone. Its stdin is a pipe from whoever started it:
when the pipe closes, by intent or by death, Triton is asked to stop, and killed if it does not. Linux's parent-death signal
alone would not do: it fires when the starting *thread* ends, and does not reach Triton's own children. It is used here, where
there is one thread, against the death of the leash itself.

Once told that Triton is ready, it watches Triton's workers too. Triton 2.51 does not start a dead one again, and calls itself
ready while every request to it fails; so the leash then ends Triton.

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
"""Triton's Python backend makes one such folder a start, wherever TMPDIR points, and removes it only if it ends at its leisure."""
REAPING_S = 2.0
"""Killed processes need no longer than that to disappear."""


def hold(command: list[str], *, parent: int, grace_s: float) -> str:
    """Run `command` until it ends, `parent` does, or one of its workers does. Returns how it ended."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    asked: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda number, _: asked.append(number))
    signal.signal(signal.SIGCHLD, lambda *_: None)

    others = worker_environments()
    environments: set[Path] = set()
    triton = os.fork()
    if triton == 0:
        _become(command, libc)
    _say(f"pid {triton}")

    told = sys.stdin.fileno()
    workers: dict[int, str] = {}
    lost: str | None = None
    deadline_s: float | None = None
    watched = [told, woken]
    while os.waitid(os.P_PID, triton, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        readable, _, _ = select.select([*watched, *workers], [], [], 0.2 if deadline_s else 1.0)
        if woken in readable:
            os.read(woken, 4096)
        if told in readable:
            if os.read(told, 4096):
                workers = _workers(triton)
                environments = worker_environments() - others
                _say("watching")
            else:
                watched.remove(told)
                asked.append(0)
        lost = next((workers[worker] for worker in readable if worker in workers), lost)
        if deadline_s is None and (asked or lost is not None or os.getppid() != parent):
            workers = {}  # from now on they are meant to end
            deadline_s = time.monotonic() + grace_s
            os.kill(triton, signal.SIGTERM)
        elif deadline_s is not None and time.monotonic() > deadline_s:
            os.kill(triton, signal.SIGKILL)
    # Triton is a zombie still, so its process group cannot be anyone else's yet.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(triton, signal.SIGKILL)
    ended = _reap(triton)
    remove_environments(environments or worker_environments() - others)
    return ended if lost is None else f"worker {lost}"


def sweep(prefix: str, folders: Iterable[str | Path]) -> None:
    """Remove what a killed Triton leaves: its shared memory, whose names begin with `prefix`, and temporary folders."""
    for left in SHARED_MEMORY.glob(f"{prefix}*"):
        left.unlink(missing_ok=True)
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def worker_environments() -> set[Path]:
    """The folders of that kind which this user's Tritons have made."""
    mine = os.getuid()
    found = set()
    for folder in map(Path, glob.glob(WORKER_ENVIRONMENTS)):
        with contextlib.suppress(OSError):
            if folder.lstat().st_uid == mine:
                found.add(folder)
    return found


def remove_environments(folders: Iterable[Path]) -> None:
    """Remove those that are empty. Ours are, since no model of ours brings an environment along."""
    for left in folders:
        with contextlib.suppress(OSError):
            left.rmdir()


def _workers(triton: int) -> dict[int, str]:
    """A file descriptor for each of Triton's children, readable when it has died (pidfd_open(2)), and the model that it runs.

    Linux before 5.3 has none; then nothing is watched.
    """
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, AttributeError):
            # Fields of proc(5)'s stat; the second, a name in parentheses, may hold anything.
            if int((process / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[1]) != triton:
                continue
            # A worker's first argument is <repository>/<model>/<version>/<file>; of one that has just died nobody can tell any more.
            arguments = (process / "cmdline").read_text(encoding="utf-8", errors="replace").split("\0")
            found[os.pidfd_open(int(process.name))] = Path(arguments[1]).parent.parent.name if len(arguments) > 1 else ""
    return found


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
    ended = "signal 9"
    deadline_s = time.monotonic() + REAPING_S
    while time.monotonic() < deadline_s:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            break
        if pid == triton:
            code = os.waitstatus_to_exitcode(status)
            ended = f"exit {code}" if code >= 0 else f"signal {-code}"
        elif pid == 0:
            select.select([], [], [], 0.01)
    return ended


def _say(line: str) -> None:
    with contextlib.suppress(BrokenPipeError):
        os.write(1, f"{line}\n".encode())


def main() -> None:
    """Read the settings from the first argument (JSON), hold Triton, sweep, tell how it ended."""
    settings = json.loads(sys.argv[1])
    parent = settings["parent"]
    try:
        ended = hold(settings["command"], parent=parent, grace_s=settings["grace_s"])
    finally:
        # A parent that lives still wants to read Triton's log in there.
        sweep(settings["shm_prefix"], settings["folders"] if os.getppid() != parent else ())
    _say(ended)


if __name__ == "__main__":
    main()
