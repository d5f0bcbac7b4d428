"""HTTP connections that the tasks of an event loop share, with the bounds and the parser of the blocking ones (`http_wire`).

asyncio's own protocols rather than aiohttp, which tritonclient brings along: there an answer's headers are bounded one by one and not
together, and a connection is closed some time after it was told to; and its sentences would differ from those of the blocking client.
"""

import asyncio
import socket
import ssl
from collections.abc import Mapping
from typing import cast

from sightline.transport.address import Address
from sightline.transport.connections import is_readable
from sightline.transport.http_wire import MAX_CONNECTIONS, HttpAnswer, HttpRequest, Interrupted, Limits, Reading


class AsyncConnections:
    """The connections to one server, at most MAX_CONNECTIONS at a time, for the tasks of one event loop."""

    def __init__(self, address: Address, context: ssl.SSLContext | None, headers: Mapping[str, str]) -> None:
        self._address, self._context, self._headers = address, context, headers
        self._host = f"{address.host}:{address.port}"
        self._places = asyncio.Semaphore(MAX_CONNECTIONS)
        self._open: set[_Connection] = set()
        self._idle: list[_Connection] = []
        self.closed = False
        """Whether `close` was called."""

    async def close(self) -> None:
        """Close all connections; whoever waits for an answer is interrupted."""
        self.closed = True
        closing, self._idle = list(self._open), []
        for connection in closing:
            connection.end()
        await asyncio.gather(*(connection.ended for connection in closing), return_exceptions=True)

    def close_idle(self) -> None:
        """Close those that nobody uses now; the next call opens another."""
        idle, self._idle = self._idle, []
        for connection in idle:
            self._discard(connection)

    async def request(self, request: HttpRequest, limits: Limits) -> HttpAnswer:
        """Send a request and read the whole answer; raises as `Connections.request` does, and ends the connection in the same cases."""
        async with asyncio.timeout(limits.remaining_s()), self._places:
            connection = self._usable() or await self._opened()
            try:
                answer = await connection.exchange(request.pieces(self._host, self._headers), Reading(request.method, limits.most_bytes))
            except BaseException:
                self._discard(connection)
                raise
            if connection.keeps_open and not self.closed:
                self._idle.append(connection)
            else:
                self._discard(connection)
            return answer

    def _usable(self) -> "_Connection | None":
        while self._idle:
            # The one used last: the others may grow old, and are closed by the server.
            connection = self._idle.pop()
            if connection.is_usable():
                return connection
            self._discard(connection)
        return None

    async def _opened(self) -> "_Connection":
        host, loop = self._address.host.strip("[]"), asyncio.get_running_loop()
        failure: OSError = Interrupted("the host has no address")
        # One address after the other, as `socket.create_connection` does, so that the last one's failure is the one that is told.
        for _, _, _, _, address in await loop.getaddrinfo(host, self._address.port, type=socket.SOCK_STREAM):
            try:
                _, connection = await loop.create_connection(
                    _Connection,
                    str(address[0]),
                    int(address[1]),
                    ssl=self._context,
                    server_hostname=host if self._context is not None else None,
                )
            except OSError as error:
                failure = error
                continue
            if self.closed:
                connection.end()
                raise Interrupted("the connection was closed before an answer came")
            self._open.add(connection)
            return connection
        raise failure

    def _discard(self, connection: "_Connection") -> None:
        self._open.discard(connection)
        connection.end()


class _Connection(asyncio.Protocol):
    """One connection, used by one task at a time."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._reading: Reading | None = None
        self._whole: asyncio.Future[HttpAnswer] | None = None
        self.ended: asyncio.Future[None] = loop.create_future()
        """Done when the socket is closed."""
        self.keeps_open = True
        """Whether it takes another request: the server has neither closed it nor said anything unasked."""

    def is_usable(self) -> bool:
        """Return whether the server has neither closed it nor said anything unasked, even if the event loop has not heard of it yet."""
        sock = cast("asyncio.Transport", self._transport).get_extra_info("socket")
        return self.keeps_open and not is_readable(sock)

    async def exchange(self, pieces: list[bytes], reading: Reading) -> HttpAnswer:
        """Send a request and read the whole answer."""
        transport = cast("asyncio.Transport", self._transport)
        self._reading, self._whole = reading, asyncio.get_running_loop().create_future()
        for piece in pieces:
            transport.write(piece)
        try:
            return await self._whole
        finally:
            self._reading = self._whole = None

    def end(self) -> None:
        """Close it now: what is still to be sent or to come belongs to nobody."""
        self.keeps_open = False
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep what to write to; asyncio sets TCP_NODELAY itself."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Read on."""
        if self._reading is None:
            self.end()  # said unasked
            return
        self._take(data)

    def eof_received(self) -> None:
        """Read the end, which may be that of an answer without a length."""
        self.keeps_open = False
        self._take(b"")

    def connection_lost(self, exc: Exception | None) -> None:
        """Interrupt whoever waits."""
        self.keeps_open = False
        if self._whole is not None and not self._whole.done():
            if exc is not None:
                self._whole.set_exception(exc)
            else:
                self._take(b"")
        if not self.ended.done():
            self.ended.set_result(None)

    def _take(self, data: bytes) -> None:
        if self._reading is None or self._whole is None or self._whole.done():
            return
        try:
            self._reading.take(data)
        except (OSError, ValueError) as error:
            self._whole.set_exception(error)
            self.end()
            return
        if self._reading.is_whole:
            self.keeps_open = self.keeps_open and not self._reading.should_close()
            self._whole.set_result(self._reading.answer())
