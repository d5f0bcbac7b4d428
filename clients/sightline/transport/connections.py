"""HTTP connections that all threads of a process share: at most so many, each call within one deadline, none after an interruption.

The standard library's `http.client` speaks HTTP. What is added is the whole call's deadline, since its own time-out begins anew with
every byte that drips in, and the pool.
"""

import http.client
import io
import select
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from sightline.transport.address import Address

MAX_CONNECTIONS: Final = 32
"""Of one transport. Threads beyond it wait for one another; a server on the same machine gains nothing from more."""


class Interrupted(ConnectionError):
    """The connection ended before an answer came."""


@dataclass(frozen=True)
class Answer:
    """A whole answer."""

    status: int
    headers: http.client.HTTPMessage
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

        Raises TimeoutError at the deadline, Interrupted or another OSError if there is no connection or it ends early,
        `http.client.HTTPException` or ValueError for what is no HTTP or longer than allowed. After any of these, and when the caller is
        interrupted, the connection is closed: what is still to come on it belongs to nobody.
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
        if context is None:
            self._http = http.client.HTTPConnection(host, address.port, timeout=limits.remaining_s())
        else:
            self._http = http.client.HTTPSConnection(host, address.port, timeout=limits.remaining_s(), context=context)
        self._http.auto_open = 0
        self._http.connect()
        self.keeps_open = True
        """Whether it takes another request after this one."""

    def is_usable(self) -> bool:
        """Return whether the server has neither closed it nor said anything unasked."""
        return self._http.sock is not None and not _is_readable(self._http.sock)

    def exchange(self, method: str, path: str, body: bytes, headers: Mapping[str, str], limits: Limits) -> Answer:
        """Send a request and read the whole answer; see `Connections.request`."""
        self._http.sock.settimeout(limits.remaining_s())
        self._http.response_class = partial(_response, limits)  # type: ignore[assignment]
        try:
            self._http.request(method, path, body, headers)
            response = self._http.getresponse()
        except http.client.RemoteDisconnected as error:
            raise Interrupted(str(error)) from None
        content = response.read(limits.most_bytes + 1)
        if len(content) > limits.most_bytes:
            raise ValueError(f"longer than {limits.most_bytes:,} bytes")
        if response.length:
            raise Interrupted("the connection ended in the middle of an answer")
        self.keeps_open = not response.will_close
        response.close()
        return Answer(response.status, response.headers, content)

    def close(self) -> None:
        """Close it."""
        self._http.close()

    def drop(self) -> None:
        """Close this process's copy of the socket without a word to the server, such as TLS's that this is the end."""
        inherited, self._http.sock = self._http.sock, None
        if inherited is not None:
            socket.close(inherited.detach())


def _is_readable(sock: socket.socket) -> bool:
    if not hasattr(select, "poll"):  # Windows
        return bool(select.select([sock], [], [], 0)[0])
    waiting = select.poll()
    waiting.register(sock, select.POLLIN)
    return bool(waiting.poll(0))


def _response(limits: Limits, sock: socket.socket, debuglevel: int = 0, *, method: str) -> http.client.HTTPResponse:
    """Return a response that is read up to the deadline, however the bytes drip in."""
    response = http.client.HTTPResponse(sock, debuglevel, method)
    response.fp = io.BufferedReader(_Incoming(response.fp.detach(), sock, limits))
    return response


class _Incoming(io.RawIOBase):
    """What comes in on a socket until the deadline."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket, limits: Limits) -> None:
        self._raw, self._sock, self._limits = raw, sock, limits

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int | None:  # type: ignore[override]
        self._sock.settimeout(self._limits.remaining_s())
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()
