"""How a server is started, as one value that is validated at once."""

from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Final

from sightline.errors import UsageError
from sightline_serving.process.ports import Ports, ip_of


@dataclass(frozen=True, kw_only=True)
class ServeSettings:
    """Where a server listens, what it serves, and how long it may take. Raises UsageError if a value makes no sense."""

    http_port: int = 8000
    grpc_port: int = 8001
    metrics_port: int = 8002
    """Of each port, 0 is any free one."""
    address: str = "127.0.0.1"
    """The IPv4 address to listen on, or `localhost`."""
    models: tuple[str, ...] = ()
    """Serve these models only; none serves all."""
    startup_timeout_s: float = 120.0
    stop_timeout_s: float = 5.0
    """At the end, requests in flight and clients that keep a connection open have so long."""
    log_file: Path | None = None
    """Triton's output is appended to it; None keeps it in a temporary file."""
    verbose: bool = False
    """Copy Triton's output to stderr."""
    verify_hashes: bool = True
    """Serve a version only if its files are those that were published."""
    allow_unreported: bool = False
    """Serve versions without a report too, of which nobody can say whether they are those that were published."""
    require_signature: Path | None = None
    """A PEM file with a public key: serve a model only as its owner signed it (`sightline sign`)."""
    outdated_beyond_loopback: bool = False
    """Let the wheel's old Triton listen on a network."""
    fit_cores: bool = True
    """On a machine with other cores than the one that exported a model, serve it with instances and threads that fit this one."""
    plans: bool = True
    """Let TensorRT plans answer for the models where they fit this machine."""
    version_compatible: bool = False
    """Admit plans of another TensorRT, which hold code that Triton runs."""
    engine_cache: Path | None = None
    """Let ONNX Runtime's TensorRT provider answer for models without a plan, and keep its engines in this folder."""

    def __post_init__(self) -> None:
        """Validate the address, the ports and the times."""
        ip_of(self.address)
        Ports(self.http_port, self.grpc_port, self.metrics_port)
        for name, seconds in (("startup", self.startup_timeout_s), ("stop", self.stop_timeout_s)):
            if not seconds > 0:
                raise UsageError(f"a {name} timeout of {seconds:g} s gives no time at all: name a positive number of seconds")

    @property
    def ip(self) -> IPv4Address:
        """The address to listen on."""
        return ip_of(self.address)

    @property
    def ports(self) -> Ports:
        """The three ports."""
        return Ports(self.http_port, self.grpc_port, self.metrics_port)


FREE_PORTS: Final = ServeSettings(http_port=0, grpc_port=0, metrics_port=0)
"""For a server whose address nobody must know beforehand, such as one of a test."""
