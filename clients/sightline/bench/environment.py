"""Says what was measured and where: without that a figure means nothing, and a difference between two has no explanation."""

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from sightline.bench.perf_analyzer import find_perf_analyzer, perf_analyzer_version
from sightline.bench.run import opened
from sightline.bench.settings import BenchSettings
from sightline.card import ModelCard
from sightline.host.cpu import usable_cores
from sightline.repository.instances import THREADS
from sightline.transport import InstanceGroup, ServedConfig, connect, parse_url
from sightline.transport.headers import is_loopback

PACKAGES: Final = ("sightline", "pillow", "numpy", "tritonclient")

INSTRUCTIONS: Final = (
    *("sse4_2", "avx", "avx2", "fma", "avx_vnni", "avx512f", "avx512bw", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_int8", "amx_bf16"),
    *("asimd", "asimddp", "i8mm", "bf16", "sve"),
)
"""What decides how fast networks and Pillow's filters are, as Linux calls it: Intel's and AMD's, then Arm's."""


@dataclass(frozen=True)
class Machine:
    """Where the client ran; the server too, if it is at a loopback address."""

    processor: str
    architecture: str
    instructions: tuple[str, ...]
    """Those of INSTRUCTIONS that the processor has, in their order; none where the system does not say."""
    cores: int
    """That this process may use."""
    memory_gib: float
    """0 where the system does not say."""
    system: str
    load: float
    """Processes that wanted to run in the minute before (the load average); 0 where the system does not say."""

    @property
    def was_busy(self) -> bool:
        """Whether other work kept half of the cores busy before anything was measured."""
        return self.load > self.cores / 2


@dataclass(frozen=True)
class Served:
    """What was measured, as the server has it."""

    url: str
    on_this_machine: bool
    server_name: str
    server_version: str
    """Of Triton."""
    model: str
    version: str
    card_sha256: str
    precision: str
    """From the repository's report; "" where it was not at hand: a server does not say it."""
    backend: str
    instances: str
    """As `2 × KIND_CPU`."""
    threads: str
    """Of one instance: a number, "all", or "" where the configuration does not say."""
    batching: str
    """As `up to 256, delay 0 µs`, or `none`."""
    has_sample: bool
    """Whether the server has a published answer to hold the model to."""


@dataclass(frozen=True)
class Environment:
    """What was measured, where, and with what."""

    machine: Machine
    versions: dict[str, str]
    """Of Python, the packages in PACKAGES, and perf_analyzer."""
    served: tuple[Served, ...]
    """One for each address."""


def describe(card: ModelCard, urls: Sequence[str], settings: BenchSettings, precision: str = "") -> Environment:
    """Ask each server what it is, and this machine. Raises what a transport raises."""
    served = []
    for url in urls:
        with connect(url, settings.timeout_s, settings.tls, settings.headers) as transport:
            metadata, model = transport.server(), opened(transport, card, settings.version)
            config = transport.config(card.name, model.version)
        served.append(
            Served(
                url=url,
                on_this_machine=is_loopback(parse_url(url).host),
                server_name=metadata.name,
                server_version=metadata.version,
                model=card.name,
                version=model.version,
                card_sha256=card.sha256,
                precision=precision,
                backend=config.backend,
                instances=_instances(config.instance_groups),
                threads=_threads(config),
                batching=f"up to {config.max_batch_size}, delay {config.queue_delay_us} µs" if config.batches else "none",
                has_sample=model.version in model.samples,
            )
        )
    return Environment(this_machine(), versions(), tuple(served))


def this_machine(cpuinfo: Path = Path("/proc/cpuinfo")) -> Machine:
    """Return what the system says of this machine."""
    named, flags = _cpuinfo(cpuinfo)
    return Machine(
        processor=named or platform.processor() or platform.machine(),
        architecture=platform.machine(),
        instructions=tuple(name for name in INSTRUCTIONS if name in flags),
        cores=usable_cores(),
        memory_gib=_memory_gib(),
        system=platform.platform(),
        load=round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else 0.0,
    )


def versions() -> dict[str, str]:
    """Return the versions of Python, of the packages that the client's speed depends on, and of perf_analyzer."""
    packages = {package: _version_of(package) for package in PACKAGES}
    return {"python": platform.python_version(), **packages, "perf_analyzer": perf_analyzer_version(find_perf_analyzer())}


def _version_of(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"


def _cpuinfo(file: Path) -> tuple[str, frozenset[str]]:
    """The processor's name, and the flags of its first core."""
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return "", frozenset()
    said = [(key.strip(), value.strip()) for key, _, value in (line.partition(":") for line in lines)]
    name = next((value for key, value in said if key == "model name"), "")
    flags = next((value for key, value in said if key in ("flags", "Features")), "")
    return name, frozenset(flags.split())


def _memory_gib() -> float:
    try:
        return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1)
    except (AttributeError, OSError, ValueError):  # Windows
        return 0.0


def _instances(groups: Sequence[InstanceGroup]) -> str:
    return ", ".join(f"{max(1, group.count)} × {group.kind}" for group in groups) or "1"


def _threads(config: ServedConfig) -> str:
    threads = config.parameters.get(THREADS, "")
    return "all" if threads == "0" else threads
