"""HTTP for the tasks of one event loop: connections that they share, bounded answers, a deadline on each call."""

from collections.abc import Mapping

from sightline.errors import ServerError
from sightline.transport.address import Address, Tls
from sightline.transport.async_connections import AsyncConnections
from sightline.transport.calls import Call, Value
from sightline.transport.failures import closed
from sightline.transport.headers import demand_headers
from sightline.transport.http_calls import HttpCalls, tls_context
from sightline.transport.http_wire import HttpAnswer, HttpRequest
from sightline.transport.verbs import AwaitedTransport


class AsyncHttpTransport(AwaitedTransport[HttpRequest, HttpAnswer]):
    """`AsyncTransport` over HTTP."""

    def __init__(self, address: Address, timeout_s: float, tls: Tls, headers: Mapping[str, str]) -> None:
        checked = demand_headers(headers)
        self._http = HttpCalls(address, timeout_s, checked)
        super().__init__(self._http)
        self._connections = AsyncConnections(address, tls_context(address, tls), checked)

    async def aclose(self) -> None:
        """Close the connections; calls in flight raise UsageError."""
        await self._connections.close()

    async def _carry_out(self, call: Call[HttpRequest, HttpAnswer, Value]) -> Value:
        if self._connections.closed:
            raise closed(self.url)
        try:
            answer = await self._connections.request(call.request, self._http.limits())
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
