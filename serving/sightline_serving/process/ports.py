"""The ports and the address to listen on, as values."""

import ipaddress
from dataclasses import dataclass

from sightline.errors import UsageError


@dataclass(frozen=True)
class Ports:
    """Three different TCP ports of one address; 0 is any free one. Raises UsageError if they are none."""

    http: int
    grpc: int
    metrics: int

    def __post_init__(self) -> None:
        """Validate the numbers."""
        for protocol, port in self.by_protocol.items():
            if not 0 <= port <= 65535:
                raise UsageError(f"{port} is no port: {protocol} takes 0 (any free one) to 65535")
        fixed = [port for port in self.by_protocol.values() if port]
        if len(set(fixed)) != len(fixed):
            raise UsageError(f"HTTP, gRPC and metrics need three different ports, not {self.http}, {self.grpc} and {self.metrics}")

    @property
    def by_protocol(self) -> dict[str, int]:
        """The ports by the names that messages call them."""
        return {"HTTP": self.http, "gRPC": self.grpc, "metrics": self.metrics}


def ip_of(address: str) -> ipaddress.IPv4Address:
    """Return `address` as an IPv4 address; `localhost` is 127.0.0.1. Raises UsageError for anything else: Triton takes no names."""
    try:
        return ipaddress.IPv4Address("127.0.0.1" if address == "localhost" else address)
    except ValueError:
        raise UsageError(f"{address} is no IPv4 address to listen on: 127.0.0.1 is this machine alone, 0.0.0.0 every network") from None
