"""HTTP: one connection for each thread (tritonclient's HTTP client must not be shared), bounded answers, a deadline on each call."""

import ssl
import threading
from collections.abc import Callable, Mapping
from http.client import HTTPException
from typing import Protocol, TypeVar, cast

import gevent
import gevent.ssl
import tritonclient.http
from tritonclient.utils import InferenceServerException

from sightline.transport.address import Address, Tls
from sightline.transport.calls import MAX_ANSWER_BYTES, TritonClient, TritonTransport, tls_refused
from sightline.transport.failures import closed, deadline, from_triton, not_triton, unavailable

Value = TypeVar("Value")


class HttpTransport(TritonTransport):
    """`Transport` over HTTP."""

    tritonclient = tritonclient.http

    def __init__(self, address: Address, timeout_s: float, tls: Tls) -> None:
        super().__init__(address, timeout_s, options={}, as_json={})
        self._address = address
        self._context = _tls_context(tls) if address.secure else None
        self._own = threading.local()
        self._opened: list[_BoundedClient] = []
        self._lock = threading.Lock()
        self._closed = False

    def close(self) -> None:
        """Close the connections of all threads."""
        with self._lock:
            self._closed = True
            opened, self._opened = self._opened, []
        for client in opened:
            client.close()

    def _client(self) -> "_BoundedClient":
        """Return the client of the calling thread."""
        client: _BoundedClient | None = getattr(self._own, "client", None)
        if client is None:
            client = _BoundedClient(
                f"{self._address.host}:{self._address.port}" + (f"/{self._address.path}" if self._address.path else ""),
                connection_timeout=self._timeout_s,
                network_timeout=self._timeout_s,
                ssl=self._address.secure,
                ssl_context_factory=None if self._context is None else lambda: self._context,
            )
            with self._lock:
                if self._closed:
                    raise closed(self.url)
                self._opened.append(client)
            self._own.client = client
        return client

    def _call(self, call: Callable[[TritonClient], Value], model: str = "") -> Value:
        if self._closed:
            raise closed(self.url)
        client = self._client()
        try:
            # The client's own timeouts bound each read; this one bounds the whole, against an answer that drips.
            with gevent.Timeout(self._timeout_s):
                return call(client)
        except InferenceServerException as error:
            raise from_triton(error, self.url, self._timeout_s, model) from None
        except (gevent.Timeout, TimeoutError):
            self._forget(client)
            raise deadline(self.url, self._timeout_s) from None
        except OSError as error:
            self._forget(client)
            raise unavailable(self.url, error.strerror or error) from None
        except (HTTPException, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            self._forget(client)
            raise not_triton(self.url, error) from None

    def _read_version(self, response: object) -> str:
        return str(dict(cast("Mapping[str, object]", response))["model_version"])

    def _forget(self, client: "_BoundedClient") -> None:
        """Drop a connection in an unknown state; the thread's next call opens another."""
        self._own.client = None
        with self._lock:
            if client in self._opened:
                self._opened.remove(client)
        client.close()


class _BoundedClient(tritonclient.http.InferenceServerClient):  # type: ignore[misc]  # tritonclient has no types
    """Reads no more of an answer than MAX_ANSWER_BYTES, and nothing compressed."""

    def _get(self, *arguments: object, **named: object) -> "_Body":
        return _Body(super()._get(*arguments, **named))

    def _post(self, *arguments: object, **named: object) -> "_Body":
        return _Body(super()._post(*arguments, **named))


class _Response(Protocol):
    """What is used of geventhttpclient's response."""

    status_code: int

    def get(self, header: str) -> str | None: ...

    def read(self, length: int) -> bytes: ...


class _Body:
    """The part of geventhttpclient's response that tritonclient uses, already read."""

    def __init__(self, response: _Response) -> None:
        self.status_code = response.status_code
        self.get = response.get
        self._content = bytes(response.read(MAX_ANSWER_BYTES + 1))
        self._at = 0
        if len(self._content) > MAX_ANSWER_BYTES:
            raise ValueError(f"longer than {MAX_ANSWER_BYTES:,} bytes")
        if response.get("content-encoding") not in (None, "identity"):
            raise ValueError("compressed, which was not asked for")

    def read(self, length: int = -1) -> bytes:
        end = len(self._content) if length < 0 else self._at + length
        start, self._at = self._at, end
        return self._content[start:end]


def _tls_context(tls: Tls) -> ssl.SSLContext:
    try:
        context: ssl.SSLContext = gevent.ssl.create_default_context(cafile=None if tls.ca_file is None else str(tls.ca_file))
        if tls.cert_file is not None:
            context.load_cert_chain(str(tls.cert_file), None if tls.key_file is None else str(tls.key_file))
    except OSError as error:
        raise tls_refused(error) from None
    return context
