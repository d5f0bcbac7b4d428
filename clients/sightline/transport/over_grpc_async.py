"""gRPC for the tasks of one event loop: one channel, with a deadline on each call. What is cancelled is cancelled on the server too."""

import asyncio
from collections.abc import Mapping

import grpc
import grpc.aio
from google.protobuf.message import Message
from tritonclient.grpc import service_pb2_grpc

from sightline.transport.address import Address, Tls
from sightline.transport.calls import Call, Value
from sightline.transport.failures import closed
from sightline.transport.grpc_calls import CHANNEL_OPTIONS, GrpcCalls, GrpcRequest, credentials_of
from sightline.transport.headers import demand_headers
from sightline.transport.verbs import AwaitedTransport


class AsyncGrpcTransport(AwaitedTransport[GrpcRequest, Message]):
    """`AsyncTransport` over gRPC."""

    def __init__(self, address: Address, timeout_s: float, tls: Tls, headers: Mapping[str, str]) -> None:
        checked = demand_headers(headers)
        super().__init__(GrpcCalls(address.url, timeout_s, checked))
        self._target = f"{address.host}:{address.port}"
        self._credentials = credentials_of(tls) if address.secure else None
        self._metadata = tuple(checked.items())
        self._channel: grpc.aio.Channel | None = None
        self._stub: service_pb2_grpc.GRPCInferenceServiceStub | None = None
        self._closed = False

    async def aclose(self) -> None:
        """Close the channel; calls in flight raise UsageError."""
        self._closed = True
        channel, self._channel, self._stub = self._channel, None, None
        if channel is not None:
            await channel.close()

    def _opened_stub(self) -> "service_pb2_grpc.GRPCInferenceServiceStub":
        if self._closed:
            raise closed(self.url)
        if self._stub is None:
            if self._credentials is None:
                self._channel = grpc.aio.insecure_channel(self._target, options=CHANNEL_OPTIONS)
            else:
                self._channel = grpc.aio.secure_channel(self._target, self._credentials, options=CHANNEL_OPTIONS)
            self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        return self._stub

    async def _carry_out(self, call: Call[GrpcRequest, Message, Value]) -> Value:
        procedure = getattr(self._opened_stub(), call.request.procedure)
        answering = asyncio.ensure_future(procedure(call.request.message, timeout=self._calls.timeout_s, metadata=self._metadata))
        try:
            # Apart from the call, which would put a cancellation of its own in the place of the caller's; anyio knows its by its words.
            await asyncio.wait((answering,))
        except asyncio.CancelledError:
            answering.cancel()
            raise
        try:
            answer = answering.result()
        except grpc.RpcError as error:
            if self._closed:
                raise closed(self.url) from None
            raise self._calls.refused(str(error.code()), error.details(), call.model) from None
        except asyncio.CancelledError:
            # So ends a call whose channel was closed.
            if self._closed:
                raise closed(self.url) from None
            raise
        except grpc.aio.UsageError:
            if self._closed:
                raise closed(self.url) from None
            raise
        return call.read(answer)
