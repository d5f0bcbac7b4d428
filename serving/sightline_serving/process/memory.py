"""What a server holds in memory: the share of each of its processes in the machine's memory (PSS), which counts once what several share."""

from collections.abc import Iterable
from typing import Final

import psutil

from sightline.in_triton import REFORMAT, SHARED

MIB: Final = 1024 * 1024

Held = dict[str, list[int]]
"""Who → PSS of each of its processes, in bytes."""


def held(pid: int, models: Iterable[str] = ()) -> Held:
    """Read what the server with the process id `pid` holds, and each worker of `models`, or of what reformats for them, or for all.

    A process that ends meanwhile counts nothing.
    """
    owners = [f"{model}{suffix}" for model in models for suffix in ("", REFORMAT)] + [SHARED]
    shares: Held = {"Triton": []}
    try:
        root = psutil.Process(pid)
        processes = [root, *root.children(recursive=True)]
    except psutil.Error:
        return shares
    for process in processes:
        try:
            words, share = process.cmdline(), pss_bytes(process)
        except psutil.Error:
            continue
        of = [model for model in owners if any(_is_of(word, model) for word in words)]
        shares.setdefault(max(of, key=len) if of else "Triton", []).append(share)
    return dict(sorted(shares.items()))


def pss_bytes(process: psutil.Process) -> int:
    """Return the share of one process (Linux, /proc/PID/smaps_rollup); elsewhere its resident set. Raises psutil.Error if it has ended."""
    memory = process.memory_full_info()
    return int(getattr(memory, "pss", 0) or memory.rss)


def mib(shares: Held, who: str = "all") -> int:
    """Return the share of one, or of all, in MiB."""
    return round(sum(sum(shares[name]) for name in shares if who in (name, "all")) / MIB)


def count(shares: Held, who: str = "all") -> int:
    """Return the number of processes of one, or of all."""
    return sum(len(processes) for name, processes in shares.items() if who in (name, "all"))


def _is_of(word: str, model: str) -> bool:
    """Whether an argument of a worker's command line names its model."""
    return word == model or f"/{model}/" in word or (word.startswith(f"{model}_") and word.removeprefix(f"{model}_").isdigit())
