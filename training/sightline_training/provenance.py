"""Where and with what a run was made: without that, seconds mean nothing and a difference in the last digit has no explanation."""

import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import torch

PACKAGES: Final = ("sightline", "torch", "torchvision", "lightning", "torchmetrics", "numpy", "pillow", "safetensors")


def versions() -> dict[str, str]:
    """Python's version and those of the packages that decide the result."""
    return {"python": platform.python_version(), **{package: version(package) for package in PACKAGES}}


def hardware(device: str) -> dict[str, Any]:
    """CPU, cores that this process may use, torch's threads, and the GPU if one was used."""
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "torch_threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name(0) if device == "gpu" else None,
    }


def usable_threads() -> int:
    """Threads that torch should use: its own choice, but not more than the container's CPU quota allows.

    torch counts cores and knows no quota (cgroup v2, cpu.max); with more threads than quota each step waits for the slowest.
    """
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        allowed = max(1, int(quota) // int(period))
    except (OSError, ValueError):
        return torch.get_num_threads()
    return min(torch.get_num_threads(), allowed)


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())
