"""What a server's processes cost: their share of the machine's memory (PSS) and their CPU seconds, the whole tree (Linux).

PSS counts what several processes share once in all (/proc/PID/smaps_rollup).
"""

import contextlib
from collections.abc import Iterable

import psutil

from sightline_serving.process import memory


def tree(pid: int, marker: str = "") -> list[psutil.Process]:
    """Return a process and all below it, and those that have `marker` (`NAME=value`) in their environment: daemons leave the tree."""
    root = psutil.Process(pid)
    members = {process.pid: process for process in (root, *root.children(recursive=True))}
    if marker:
        members |= {process.pid: process for process in marked(marker)}
    return [process for process in members.values() if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]


def marked(marker: str) -> list[psutil.Process]:
    """Return the processes that have `marker` in their environment, this one left out."""
    name, _, value = marker.partition("=")
    members = []
    for process in psutil.process_iter():
        try:
            if process.pid != psutil.Process().pid and process.environ().get(name) == value:
                members.append(process)
        except (psutil.Error, OSError):  # another user's, or it has ended
            continue
    return members


def pss_bytes(processes: Iterable[psutil.Process]) -> int:
    """Return what they hold together; one that has ended meanwhile holds nothing."""
    held = 0
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            held += memory.pss_bytes(process)
    return held


def cpu_s(processes: Iterable[psutil.Process]) -> dict[int, float]:
    """Return the CPU seconds of each so far, by process id: of its own and of its children that have ended."""
    seconds = {}
    for process in processes:
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        seconds[process.pid] = sum((times.user, times.system, times.children_user, times.children_system))
    return seconds
