"""Reserves the ports to listen on: checked before Triton spends seconds on loading models, and kept from others until it listens."""

import contextlib
import errno
import ipaddress
import socket
from collections.abc import Iterator

import psutil

from sightline.errors import ServerStartError
from sightline_serving.process.ports import Ports


@contextlib.contextmanager
def reserve(address: ipaddress.IPv4Address, wanted: Ports) -> Iterator[Ports]:
    """Hold the ports until the block ends; 0 becomes a free port. Raises ServerStartError if one is taken, and says what to do.

    A socket that is bound with SO_REUSEADDR and does not listen keeps the port from being given to anyone who asks for a free
    one, yet lets Triton, which sets the same option, bind and listen beside it (socket(7)).
    """
    with contextlib.ExitStack() as sockets:
        ports: dict[str, int] = {}
        # Fixed ports first, so that no free one takes their place.
        for protocol, port in sorted(wanted.by_protocol.items(), key=lambda item: item[1] == 0):
            holder = sockets.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                holder.bind((str(address), port))
            except OSError as error:
                raise ServerStartError(_bind_failure(protocol, str(address), port, error)) from None
            ports[protocol] = holder.getsockname()[1]
        yield Ports(ports["HTTP"], ports["gRPC"], ports["metrics"])


def port_taken(protocol: str, address: str, port: int) -> str:
    """Return the sentence for a port that another program listens on."""
    program = _listener(port)
    return (
        f"port {port} ({protocol}) at {address} is taken{f' by {program}' if program else ''}: "
        f"stop it, or choose another {protocol} port (0 picks a free one)"
    )


def _bind_failure(protocol: str, address: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return port_taken(protocol, address, port)
    if error.errno == errno.EADDRNOTAVAIL:
        return f"no network of this machine has the address {address}: 127.0.0.1 is this machine alone, 0.0.0.0 every network"
    if error.errno == errno.EACCES:
        return f"port {port} ({protocol}) is reserved for the system's administrator: choose one above 1023"
    return f"port {port} ({protocol}) at {address} cannot be listened on: {error.strerror}"


def _listener(port: int) -> str:
    """Name and process id of the program that listens on `port`; empty if this user may not see it."""
    with contextlib.suppress(psutil.Error, OSError):
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port and connection.pid:
                return f"{psutil.Process(connection.pid).name()} (process {connection.pid})"
    return ""
