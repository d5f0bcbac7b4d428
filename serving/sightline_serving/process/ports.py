"""Addresses to listen on: checked before Triton spends seconds on loading models, and kept from others until it listens."""

import contextlib
import errno
import ipaddress
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import psutil

from sightline.errors import ServerStartError, UsageError

OPTIONS: Final = {"HTTP": "--http-port", "gRPC": "--grpc-port", "metrics": "--metrics-port"}


@dataclass(frozen=True)
class Ports:
    """Three TCP ports of one address."""

    http: int
    grpc: int
    metrics: int


def ip_of(address: str) -> ipaddress.IPv4Address:
    """`address` as an IPv4 address; `localhost` is 127.0.0.1. Raises UsageError for anything else: Triton takes no names."""
    try:
        return ipaddress.IPv4Address("127.0.0.1" if address == "localhost" else address)
    except ValueError:
        raise UsageError(f"{address} is no IPv4 address to listen on: 127.0.0.1 is this machine alone, 0.0.0.0 every network") from None


@contextlib.contextmanager
def reserve(address: ipaddress.IPv4Address, wanted: Ports) -> Iterator[Ports]:
    """Hold the ports until the block ends; 0 becomes a free port. Raises ServerStartError if one is taken, and says what to do.

    A socket that is bound with SO_REUSEADDR and does not listen keeps the port from being given to anyone who asks for a free
    one, yet lets Triton, which sets the same option, bind and listen beside it (socket(7)).
    """
    given = {"HTTP": wanted.http, "gRPC": wanted.grpc, "metrics": wanted.metrics}
    fixed = [port for port in given.values() if port]
    if len(set(fixed)) != len(fixed):
        raise UsageError(f"HTTP, gRPC and metrics need three different ports, not {wanted.http}, {wanted.grpc} and {wanted.metrics}")
    with contextlib.ExitStack() as held:
        found: dict[str, int] = {}
        for what, port in sorted(given.items(), key=lambda pair: pair[1] == 0):
            holder = held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                holder.bind((str(address), port))
            except OverflowError:
                raise UsageError(f"{port} is no port: {OPTIONS[what]} takes 0 (any free one) to 65535") from None
            except OSError as error:
                raise ServerStartError(_refused(what, str(address), port, error)) from None
            found[what] = holder.getsockname()[1]
        yield Ports(found["HTTP"], found["gRPC"], found["metrics"])


def taken(what: str, address: str, port: int) -> str:
    """The sentence for a port that another program listens on."""
    by = _listener(port)
    by = f" by {by}" if by else ""
    return f"port {port} ({what}) at {address} is taken{by}: stop it, or choose another with {OPTIONS[what]} (0 picks a free one)"


def _refused(what: str, address: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return taken(what, address, port)
    if error.errno == errno.EADDRNOTAVAIL:
        return f"no network of this machine has the address {address}: 127.0.0.1 is this machine alone, 0.0.0.0 every network"
    if error.errno == errno.EACCES:
        return f"port {port} ({what}) is reserved for the system's administrator: choose one above 1023 with {OPTIONS[what]}"
    return f"port {port} ({what}) at {address} cannot be listened on: {error.strerror}"


def _listener(port: int) -> str:
    """Name and process id of the program that listens on `port`, or nothing if it is not ours to see."""
    with contextlib.suppress(psutil.Error, OSError):
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port and connection.pid:
                return f"{psutil.Process(connection.pid).name()} (process {connection.pid})"
    return ""
