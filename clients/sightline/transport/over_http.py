"""HTTP: connections that all threads share, bounded answers, a deadline on each call.

tritonclient writes the requests and reads the answers; the connections are ours (`sightline.transport.connections`), since its own
belong to a thread each, are never closed when the thread ends, and are shared with forked processes.
"""

from collections.abc import Mapping

from sightline.errors import ServerError
from sightline.transport.address import Address, Tls
from sightline.transport.calls import Call, Value
from sightline.transport.connections import Connections
from sightline.transport.failures import closed
from sightline.transport.forks import renew_after_fork
from sightline.transport.headers import demand_headers
from sightline.transport.http_calls import HttpCalls, tls_context
from sightline.transport.http_wire import HttpAnswer, HttpRequest
from sightline.transport.verbs import BlockingTransport


class HttpTransport(BlockingTransport[HttpRequest, HttpAnswer]):
    """`Transport` over HTTP."""

    def __init__(self, address: Address, timeout_s: float, tls: Tls, headers: Mapping[str, str]) -> None:
        checked = demand_headers(headers)
        self._http = HttpCalls(address, timeout_s, checked)
        super().__init__(self._http)
        self._connections = Connections(address, tls_context(address, tls), checked)
        renew_after_fork(self)

    def close(self) -> None:
        """Close the connections; calls in flight raise UsageError."""
        self._connections.close()

    def renew(self) -> None:
        """Begin anew in a forked process."""
        self._connections.renew()

    def _carry_out(self, call: Call[HttpRequest, HttpAnswer, Value]) -> Value:
        if self._connections.closed:
            raise closed(self.url)
        try:
            answer = self._connections.request(call.request, self._http.limits())
        except (OSError, ValueError) as error:
            if self._connections.closed:
                raise closed(self.url) from None
            raise self._http.failed(error) from None
        try:
            return call.read(answer)
        except ServerError:
            # The connections may hold answers to somebody else.
            self._connections.close_idle()
            raise
