"""What this processor can do that decides whether an INT8 model gives the same answers on it, and how many cores we may use."""

import os
import platform
from pathlib import Path
from typing import Final

EXACT: Final = ("amx_int8", "avx512_vnni", "avx_vnni", "asimddp")
"""Instructions that add products of 8-bit integers up in 32 bits, as Linux calls them: Intel's and AMD's, the last one Arm's.

Without them x86 processors add each pair in 16 bits, which overflow: the same VGG16 file had 72.31 % of ImageNet with them and 69.35 %
without (Intel Neural Compressor, docs/source/validated_model_list.md, at 012522ef).
"""


def integer_instructions(cpuinfo: Path = Path("/proc/cpuinfo")) -> tuple[str, ...]:
    """Return those of EXACT that this machine has, as Linux lists them; none where the system does not say, as on macOS and Windows."""
    try:
        with cpuinfo.open(encoding="utf-8", errors="replace") as lines:
            described = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    except OSError:
        return ()
    listed = set(described.partition(":")[2].split())
    return tuple(name for name in EXACT if name in listed)


def usable_cores() -> int:
    """Return the number of cores that this process may use: those of its affinity where the system has one, else all."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def called() -> str:
    """Return the processor's architecture for people: `x86_64`, `aarch64`."""
    return platform.machine() or "unknown processor"
