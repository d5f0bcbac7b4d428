"""What this processor can do that decides whether an INT8 model gives the same answers on it, and how many cores we may use."""

import os
import platform
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Final

EXACT: Final = ("amx_int8", "avx512_vnni", "avx_vnni", "asimddp")
"""Instructions that add products of 8-bit integers up in 32 bits, as Linux calls them: Intel's and AMD's, the last one Arm's.

Without them x86 processors add each pair in 16 bits, which overflow: the same VGG16 file had 72.31 % of ImageNet with them and 69.35 %
without (Intel Neural Compressor, docs/source/validated_model_list.md, at 012522ef).
"""

CGROUPS: Final = Path("/sys/fs/cgroup")
"""Where Linux shows its control groups."""


def integer_instructions(cpuinfo: Path = Path("/proc/cpuinfo")) -> tuple[str, ...]:
    """Return those of EXACT that this machine has, as Linux lists them; none where the system does not say, as on macOS and Windows."""
    try:
        with cpuinfo.open(encoding="utf-8", errors="replace") as lines:
            described = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    except OSError:
        return ()
    listed = set(described.partition(":")[2].split())
    return tuple(name for name in EXACT if name in listed)


def usable_cores(cgroups: Path = CGROUPS, own_cgroup: Path = Path("/proc/self/cgroup")) -> int:
    """Return the number of cores that this process may use, at least one.

    Those of its affinity where the system has one, else all; no more whole ones than the quota of its control group or of one around it,
    by which containers are bounded (Linux: docs.kernel.org/admin-guide/cgroup-v2.html, `cpu.max`; version 1: `cpu.cfs_quota_us`).
    """
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity is not None else os.cpu_count() or 1
    return max(1, min([cores, *(int(quota) for quota in _quotas(cgroups, own_cgroup))]))


def _quotas(cgroups: Path, own_cgroup: Path) -> Iterator[float]:
    """Cores that each control group around this process has; a group without a bound gives none."""
    try:
        lines = own_cgroup.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers and "cpu" not in controllers.split(","):
            continue
        root = cgroups / controllers if controllers else cgroups
        inside = PurePosixPath(path.lstrip("/"))
        # In a container its own group is the root, whatever the path says that the host knows it by.
        for group in (inside, *inside.parents):
            if ".." not in group.parts and (quota := _quota(root / group)) is not None:
                yield quota


def _quota(group: Path) -> float | None:
    """Cores that one control group may use at most; None if it has no bound, or says nothing that can be read."""
    try:
        if (group / "cpu.max").is_file():
            words = (group / "cpu.max").read_text(encoding="ascii").split()
        else:
            words = [(group / name).read_text(encoding="ascii").strip() for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us")]
        quota_us, period_us = map(int, words)
    except (OSError, ValueError):
        return None  # `max`, too
    return quota_us / period_us if quota_us > 0 and period_us > 0 else None


def called() -> str:
    """Return the processor's architecture for people: `x86_64`, `aarch64`."""
    return platform.machine() or "unknown processor"
