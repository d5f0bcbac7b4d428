"""HTTP: connections that all threads share, bounded answers, a deadline on each call.

tritonclient writes the requests and reads the answers; the connections are ours (`sightline.transport.connections`), since its own
belong to a thread each, are never closed when the thread ends, and are shared with forked processes.
"""

import ssl
from collections.abc import Callable, Mapping
from typing import TypeVar, cast

import tritonclient.http
from geventhttpclient.header import Headers
from tritonclient.utils import InferenceServerException

from sightline.transport.address import Address, Tls
from sightline.transport.calls import MAX_ANSWER_BYTES, TritonClient, TritonTransport, tls_refused
from sightline.transport.connections import Connections, Limits
from sightline.transport.failures import closed, deadline, from_triton, not_triton, unavailable

Value = TypeVar("Value")


class HttpTransport(TritonTransport):
    """`Transport` over HTTP."""

    tritonclient = tritonclient.http

    def __init__(self, address: Address, timeout_s: float, tls: Tls) -> None:
        self._connections = Connections(address, _tls_context(tls) if address.secure else None)
        self._client = _Client(self._connections, address.path, timeout_s)
        super().__init__(address, timeout_s, options={}, as_json={})

    def close(self) -> None:
        """Close the connections."""
        self._connections.close()

    def renew(self) -> None:
        """Begin anew in a forked process."""
        super().renew()
        self._connections.renew()

    def _call(self, call: Callable[[TritonClient], Value], model: str = "") -> Value:
        if self._connections.closed:
            raise closed(self.url)
        try:
            return call(self._client)
        except InferenceServerException as error:
            raise from_triton(error, self.url, self._timeout_s, model) from None
        except TimeoutError:
            raise deadline(self.url, self._timeout_s) from None
        except OSError as error:
            raise unavailable(self.url, error.strerror or error) from None
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise not_triton(self.url, error) from None

    def _identity(self, response: object) -> tuple[str, str]:
        members = dict(cast("Mapping[str, object]", response))
        return str(members.get("id", "")), str(members["model_version"])

    def _distrust(self) -> None:
        self._connections.close_idle()


class _Client(tritonclient.http.InferenceServerClient):  # type: ignore[misc]  # tritonclient has no types
    """tritonclient's client on connections of our own."""

    def __init__(self, connections: Connections, path: str, timeout_s: float) -> None:
        # Not its own __init__, which makes a pool of gevent's.
        self._verbose = False
        self._connections, self._timeout_s = connections, timeout_s
        self._base = f"/{path}/" if path else "/"

    def close(self) -> None:
        """Leave the connections to the transport."""

    def _get(self, request_uri: str, headers: object = None, query_params: object = None) -> "_Body":  # noqa: ARG002 - tritonclient's
        return self._request("GET", request_uri, b"", {})

    def _post(
        self,
        request_uri: str,
        request_body: bytes,
        headers: Mapping[str, object] | None = None,
        query_params: object = None,  # noqa: ARG002 - tritonclient's
    ) -> "_Body":
        return self._request("POST", request_uri, request_body, {name: str(value) for name, value in (headers or {}).items()})

    def _request(self, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> "_Body":
        answer = self._connections.request(method, self._base + path, body, headers, Limits(self._timeout_s, MAX_ANSWER_BYTES))
        if answer.headers.get("content-encoding") not in (None, "identity"):
            raise ValueError("compressed, which was not asked for")
        return _Body(answer.status, answer.headers, answer.body)


class _Body:
    """The part of geventhttpclient's response that tritonclient uses, already read."""

    def __init__(self, status_code: int, headers: Headers, content: bytes) -> None:
        self.status_code, self.get = status_code, headers.get
        self._content, self._at = content, 0

    def read(self, length: int = -1) -> bytes:
        end = len(self._content) if length < 0 else self._at + length
        start, self._at = self._at, end
        return self._content[start:end]


def _tls_context(tls: Tls) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=None if tls.ca_file is None else str(tls.ca_file))
        if tls.cert_file is not None:
            context.load_cert_chain(str(tls.cert_file), None if tls.key_file is None else str(tls.key_file))
    except OSError as error:
        raise tls_refused(error) from None
    return context
