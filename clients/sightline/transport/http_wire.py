"""HTTP/1.1 without sockets: the bytes of a request, and an answer that is read piece by piece and never grows beyond what it may have.

What comes in is parsed by geventhttpclient's parser (llhttp), which tritonclient uses too. Blocking connections and those of an event
loop share this module, so that both keep the same bounds and say the same sentences. No redirect is followed, and no cookie kept.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from geventhttpclient.header import Headers
from geventhttpclient.response import HTTPParseError, HTTPResponse

MAX_CONNECTIONS: Final = 32
"""Of one transport. Callers beyond it wait for one another; a server on the same machine gains nothing from more."""
MAX_HEAD_BYTES: Final = 256 * 1024
"""Of an answer's headers; Triton's have some hundred."""
JOINED_BYTES: Final = 64 * 1024
"""A body up to this is sent together with the headers; to join a larger one costs more than a second call."""
RECEIVED_BYTES: Final = 64 * 1024


class Interrupted(ConnectionError):
    """The connection ended before an answer came."""


@dataclass(frozen=True)
class HttpRequest:
    """What is sent."""

    method: str
    path: str
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)

    def pieces(self, host: str, headers: Mapping[str, str]) -> list[bytes]:
        """Return the request to `host` with these `headers` too, as one or two pieces of bytes."""
        lines = {"Host": host, "Content-Length": str(len(self.body)), **headers, **self.headers}
        described = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        head = f"{self.method} {self.path} HTTP/1.1\r\n{described}\r\n".encode("ascii")
        return [head + self.body] if len(self.body) <= JOINED_BYTES else [head, self.body]


@dataclass(frozen=True)
class HttpAnswer:
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


class Reading(HTTPResponse):
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

    def answer(self) -> HttpAnswer:
        """Return what was read, once it is whole."""
        return HttpAnswer(self.status_code, self.info(), bytes(self.body))

    def _on_body(self, buf: bytearray) -> None:
        self.body += buf
