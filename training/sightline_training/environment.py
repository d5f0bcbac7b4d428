"""Tells where and with what a run is made: without that, seconds mean nothing and a difference in the last digit has no explanation."""

import platform
import time
from importlib.metadata import version
from pathlib import Path
from typing import Final, Literal

import torch
from pydantic import BaseModel, ConfigDict

from sightline.host.cpu import usable_cores

Device = Literal["cpu", "gpu"]
"""Where torch computes."""

PACKAGES: Final = ("sightline", "torch", "torchvision", "lightning", "torchmetrics", "numpy", "pillow", "safetensors")


def versions() -> dict[str, str]:
    """Return Python's version and those of the packages that decide the result."""
    return {"python": platform.python_version(), **{package: version(package) for package in PACKAGES}}


class Hardware(BaseModel):
    """Where a run is made."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)

    cpu: str
    cores: int
    """That this process may use."""
    torch_threads: int
    gpu: str | None
    """None if none was used."""


def hardware(device: Device) -> Hardware:
    """Return the CPU, cores that this process may use, torch's threads, and the GPU if one was used."""
    return Hardware(
        cpu=_cpu(),
        cores=usable_cores(),
        torch_threads=torch.get_num_threads(),
        gpu=torch.cuda.get_device_name(0) if device == "gpu" else None,
    )


class Stopwatch:
    """Measures what this process takes from now on."""

    def __init__(self) -> None:
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    @property
    def seconds(self) -> float:
        """Wall seconds. All that the process did since then counts, starting Python does not."""
        return round(time.perf_counter() - self.wall, 2)

    @property
    def cpu_seconds(self) -> float:
        """Seconds of CPU, of all threads."""
        return round(time.process_time() - self.cpu, 2)


def peak_memory_bytes() -> int:
    """Return the most memory that this process ever held; 0 where the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    # macOS counts in bytes, Linux in KiB.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if platform.system() == "Darwin" else 1024)


def has_bfloat16(device: Device) -> bool:
    """Return whether products in bfloat16 are faster than in float32 there: GPUs from Ampere on, CPUs with AVX512_BF16 or AMX."""
    if device == "gpu":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def usable_threads() -> int:
    """Return the number of threads that torch should use: its own choice, but not more than the container's CPU quota allows.

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
