"""HTTP connections that all threads of a process share: at most so many, each call within one deadline, none after an interruption.

geventhttpclient's own sockets are gevent's, each bound to the thread that opened it, and time out for each byte anew; these are plain
ones, with a deadline for the whole call.
"""

import select
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Protocol

from sightline.transport.address import Address
from sightline.transport.http_wire import MAX_CONNECTIONS, RECEIVED_BYTES, HttpAnswer, HttpRequest, Interrupted, Limits, Reading


class HasDescriptor(Protocol):
    """A socket, or what stands for one."""

    def fileno(self) -> int:
        """Return its file descriptor."""
        ...


class Connections:
    """The connections to one server, at most MAX_CONNECTIONS at a time. Safe to share between threads."""

    def __init__(self, address: Address, context: ssl.SSLContext | None, headers: Mapping[str, str]) -> None:
        self._address, self._context, self._headers = address, context, headers
        self._begin()

    def _begin(self) -> None:
        self._lock, self._places = threading.Lock(), threading.BoundedSemaphore(MAX_CONNECTIONS)
        self._open: set[_Connection] = set()
        self._idle: list[_Connection] = []
        self.closed = False
        """Whether `close` was called."""

    def renew(self) -> None:
        """Begin anew in a forked process, which must not say a word on its parent's connections; closing its copies tells nobody."""
        inherited, closed = self._open, self.closed
        self._begin()
        self.closed = closed
        for connection in inherited:
            connection.drop()

    def close(self) -> None:
        """Close the connections that are idle, and end the others, so that whoever waits for an answer is interrupted."""
        self.closed = True
        self.close_idle()
        with self._lock:
            for connection in self._open:
                connection.end()

    def close_idle(self) -> None:
        """Close those that nobody uses now; the next call opens another."""
        with self._lock:
            idle, self._idle = self._idle, []
            self._open.difference_update(idle)
        for connection in idle:
            connection.close()

    def request(self, request: HttpRequest, limits: Limits) -> HttpAnswer:
        """Send a request and read the whole answer.

        Raises TimeoutError at the deadline, Interrupted or another OSError if there is no connection or it ends early, ValueError for
        what is no HTTP or longer than allowed. After any of these, and when the caller is interrupted, the connection is closed: what is
        still to come on it belongs to nobody.
        """
        with self._lent(limits) as connection:
            return connection.exchange(request, self._headers, limits)

    @contextmanager
    def _lent(self, limits: Limits) -> Iterator["_Connection"]:
        places = self._places
        if not places.acquire(timeout=limits.remaining_s()):
            raise TimeoutError
        connection = None
        try:
            connection = self._usable() or self._opened(limits)
            yield connection
            self._keep(connection)
        except BaseException:
            if connection is not None:
                self._discard(connection)
            raise
        finally:
            places.release()

    def _usable(self) -> "_Connection | None":
        while True:
            with self._lock:
                # The one used last: the others may grow old, and are closed by the server.
                connection = self._idle.pop() if self._idle else None
            if connection is None or connection.is_usable():
                return connection
            self._discard(connection)

    def _opened(self, limits: Limits) -> "_Connection":
        connection = _Connection(self._address, self._context, limits)
        with self._lock:
            if not self.closed:
                self._open.add(connection)
                return connection
        connection.close()
        raise Interrupted("the connection was closed before an answer came")

    def _keep(self, connection: "_Connection") -> None:
        with self._lock:
            if not self.closed and connection.keeps_open:
                self._idle.append(connection)
                return
        self._discard(connection)

    def _discard(self, connection: "_Connection") -> None:
        with self._lock:
            self._open.discard(connection)
        connection.close()


class _Connection:
    """One connection, used by one thread at a time."""

    def __init__(self, address: Address, context: ssl.SSLContext | None, limits: Limits) -> None:
        host = address.host.strip("[]")
        self._sock = socket.create_connection((host, address.port), limits.remaining_s())
        try:
            self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if context is not None:
                self._sock = context.wrap_socket(self._sock, server_hostname=host)
        except BaseException:
            self._sock.close()
            raise
        self._host = f"{address.host}:{address.port}"
        self.keeps_open = True
        """Whether it takes another request after this one."""

    def is_usable(self) -> bool:
        """Return whether the server has neither closed it nor said anything unasked."""
        return not is_readable(self._sock)

    def exchange(self, request: HttpRequest, headers: Mapping[str, str], limits: Limits) -> HttpAnswer:
        """Send a request and read the whole answer; see `Connections.request`."""
        self._sock.settimeout(limits.remaining_s())
        for piece in request.pieces(self._host, headers):
            self._sock.sendall(piece)
        reading = Reading(request.method, limits.most_bytes)
        while not reading.is_whole:
            self._sock.settimeout(limits.remaining_s())
            reading.take(self._sock.recv(RECEIVED_BYTES))
        self.keeps_open = not reading.should_close()
        return reading.answer()

    def close(self) -> None:
        """Close it."""
        self._sock.close()

    def end(self) -> None:
        """Let whoever reads from it in another thread read its end."""
        with suppress(OSError):
            # Not SSLSocket's own, which takes TLS away from under the reader.
            socket.socket.shutdown(self._sock, socket.SHUT_RDWR)

    def drop(self) -> None:
        """Close this process's copy of the socket without a word to the server, such as TLS's that this is the end."""
        with suppress(OSError):
            socket.close(self._sock.detach())


def is_readable(sock: HasDescriptor) -> bool:
    """Return whether there is something to read from a socket: what the server said unasked, or its end."""
    if not hasattr(select, "poll"):  # Windows
        return bool(select.select([sock], [], [], 0)[0])
    waiting = select.poll()
    waiting.register(sock, select.POLLIN)
    return bool(waiting.poll(0))
