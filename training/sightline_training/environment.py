"""Where and with what a run was made: without that, seconds mean nothing and a difference in the last digit has no explanation."""

import os
import platform
import resource
import time
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


class Stopwatch:
    """What a process has taken since this was made: wall and CPU seconds; and the most memory that it ever held, in bytes."""

    def __init__(self) -> None:
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def read(self) -> dict[str, float | int]:
        """For report.json. Getting the images, features of a frozen trunk and the evaluation count too, starting Python does not."""
        return {
            "seconds": round(time.perf_counter() - self.wall, 2),
            "cpu_seconds": round(time.process_time() - self.cpu, 2),
            "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        }


def has_bfloat16(device: str) -> bool:
    """Whether products in bfloat16 are faster than in float32 there: GPUs from Ampere on, CPUs with AVX512_BF16 or AMX."""
    if device == "gpu":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


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
