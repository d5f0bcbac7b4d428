"""HTTP connections that all threads of a process share: at most so many, each call within one deadline, none after an interruption.

What comes in is parsed by geventhttpclient's parser (llhttp), which tritonclient uses too. Its sockets are gevent's, each bound to the
thread that opened it, and time out for each byte anew; these are plain ones, with a deadline for the whole call.
"""

import select
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Final

from geventhttpclient.header import Headers
from geventhttpclient.response import HTTPParseError, HTTPResponse

from sightline.transport.address import Address

MAX_CONNECTIONS: Final = 32
"""Of one transport. Threads beyond it wait for one another; a server on the same machine gains nothing from more."""
MAX_HEAD_BYTES: Final = 256 * 1024
"""Of an answer's headers; Triton's have some hundred."""
JOINED_BYTES: Final = 64 * 1024
"""A body up to this is sent together with the headers; to join a larger one costs more than a second call."""
RECEIVED_BYTES: Final = 64 * 1024


class Interrupted(ConnectionError):
    """The connection ended before an answer came."""


@dataclass(frozen=True)
class Answer:
    """A whole answer."""

    status: int
    headers: Headers
    body: bytes


@dataclass(frozen=True)
class Limits:
    """What a call may take."""

    timeout_s: float
    most_bytes: int
    """Of the answer's body."""
    started: float = field(default_factory=time.monotonic)

    def remaining_s(self) -> float:
        """Return the seconds that are left. Raises TimeoutError if there are none."""
        remaining_s = self.started + self.timeout_s - time.monotonic()
        if remaining_s <= 0:
            raise TimeoutError
        return remaining_s


class Connections:
    """The connections to one server, at most MAX_CONNECTIONS at a time. Safe to share between threads."""

    def __init__(self, address: Address, context: ssl.SSLContext | None) -> None:
        self._address, self._context = address, context
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
        """Close the connections that are idle, and each of the others as soon as it is."""
        self.closed = True
        self.close_idle()

    def close_idle(self) -> None:
        """Close those that nobody uses now; the next call opens another."""
        with self._lock:
            idle, self._idle = self._idle, []
            self._open.difference_update(idle)
        for connection in idle:
            connection.close()

    def request(self, method: str, path: str, body: bytes, headers: Mapping[str, str], limits: Limits) -> Answer:
        """Send a request and read the whole answer.

        Raises TimeoutError at the deadline, Interrupted or another OSError if there is no connection or it ends early, ValueError for
        what is no HTTP or longer than allowed. After any of these, and when the caller is interrupted, the connection is closed: what is
        still to come on it belongs to nobody.
        """
        with self._lent(limits) as connection:
            return connection.exchange(method, path, body, headers, limits)

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
            self._open.add(connection)
        return connection

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
        return not _is_readable(self._sock)

    def exchange(self, method: str, path: str, body: bytes, headers: Mapping[str, str], limits: Limits) -> Answer:
        """Send a request and read the whole answer; see `Connections.request`."""
        lines = {"Host": self._host, "Content-Length": str(len(body)), **headers}
        described = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        head = f"{method} {path} HTTP/1.1\r\n{described}\r\n".encode("ascii")
        self._sock.settimeout(limits.remaining_s())
        if len(body) <= JOINED_BYTES:
            self._sock.sendall(head + body)
        else:
            self._sock.sendall(head)
            self._sock.sendall(body)
        reading = _Reading(method, limits.most_bytes)
        while not reading.is_whole:
            self._sock.settimeout(limits.remaining_s())
            reading.take(self._sock.recv(RECEIVED_BYTES))
        self.keeps_open = not reading.should_close()
        return Answer(reading.status_code, reading.info(), bytes(reading.body))

    def close(self) -> None:
        """Close it."""
        self._sock.close()

    def drop(self) -> None:
        """Close this process's copy of the socket without a word to the server, such as TLS's that this is the end."""
        with suppress(OSError):
            socket.close(self._sock.detach())


class _Reading(HTTPResponse):
    """An answer that is read up to what it may have."""

    def __init__(self, method: str, most_bytes: int) -> None:
        super().__init__(method)
        self.body = bytearray()
        self._most_bytes, self._head_bytes = most_bytes, 0

    @property
    def is_whole(self) -> bool:
        """Whether all of it has come; an interim answer (1xx) announces another one."""
        return self.message_complete and self.status_code >= 200

    def take(self, received: bytes) -> None:
        """Read on. Raises Interrupted if nothing more comes, ValueError for what is no HTTP or too long."""
        if not received and not self.headers_complete:
            raise Interrupted("the connection was closed before an answer came")
        if not self.headers_complete:
            self._head_bytes += len(received)
        try:
            self.feed(received)
        except HTTPParseError as error:
            if received:
                raise ValueError(str(error)) from None
            # The parser's word for an end that comes too early.
            raise Interrupted("the connection was closed in the middle of an answer") from None
        if not received and not self.message_complete:
            raise Interrupted("the connection was closed in the middle of an answer")
        if not self.headers_complete and self._head_bytes > MAX_HEAD_BYTES:
            raise ValueError(f"its headers are longer than {MAX_HEAD_BYTES:,} bytes")
        if len(self.body) > self._most_bytes:
            raise ValueError(f"longer than {self._most_bytes:,} bytes")

    def _on_body(self, buf: bytearray) -> None:
        self.body += buf


def _is_readable(sock: socket.socket) -> bool:
    if not hasattr(select, "poll"):  # Windows
        return bool(select.select([sock], [], [], 0)[0])
    waiting = select.poll()
    waiting.register(sock, select.POLLIN)
    return bool(waiting.poll(0))
