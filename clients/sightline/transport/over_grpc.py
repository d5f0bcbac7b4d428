"""gRPC: one channel for all threads, with a deadline on each call."""

import threading
from collections.abc import Mapping
from typing import Final

import grpc
from google.protobuf.message import Message
from tritonclient.grpc import service_pb2_grpc

from sightline.transport.address import Address, Tls
from sightline.transport.calls import Call, Value
from sightline.transport.failures import closed
from sightline.transport.forks import IN_FLIGHT, renew_after_fork
from sightline.transport.grpc_calls import CHANNEL_OPTIONS, GrpcCalls, GrpcRequest, credentials_of
from sightline.transport.headers import demand_headers
from sightline.transport.verbs import BlockingTransport

_INHERITED: Final[list[object]] = []
"""Channels of the process that this one was forked from, which nobody may use or end here."""


class GrpcTransport(BlockingTransport[GrpcRequest, Message]):
    """`Transport` over gRPC."""

    def __init__(self, address: Address, timeout_s: float, tls: Tls, headers: Mapping[str, str]) -> None:
        checked = demand_headers(headers)
        super().__init__(GrpcCalls(address.url, timeout_s, checked))
        self._target = f"{address.host}:{address.port}"
        self._credentials = credentials_of(tls) if address.secure else None
        self._metadata = tuple(checked.items())
        self._lock = threading.Lock()
        self._channel: grpc.Channel | None = None
        self._stub: service_pb2_grpc.GRPCInferenceServiceStub | None = None
        self._closed = False
        renew_after_fork(self)

    def close(self) -> None:
        """Close the channel; calls in flight raise UsageError."""
        with self._lock:
            self._closed = True
            channel, self._channel, self._stub = self._channel, None, None
        if channel is not None:
            channel.close()

    def renew(self) -> None:
        """Begin anew in a forked process."""
        if self._channel is not None:
            # gRPC's threads are not there: to close the channel would wait for them.
            _INHERITED.append((self._channel, self._stub))
        self._lock, self._channel, self._stub = threading.Lock(), None, None

    def _opened_stub(self) -> "service_pb2_grpc.GRPCInferenceServiceStub":
        with self._lock:
            if self._closed:
                raise closed(self.url)
            if self._stub is None:
                if self._credentials is None:
                    self._channel = grpc.insecure_channel(self._target, options=CHANNEL_OPTIONS)
                else:
                    self._channel = grpc.secure_channel(self._target, self._credentials, options=CHANNEL_OPTIONS)
                self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
            return self._stub

    def _carry_out(self, call: Call[GrpcRequest, Message, Value]) -> Value:
        try:
            with IN_FLIGHT:
                procedure = getattr(self._opened_stub(), call.request.procedure)
                answer = procedure(call.request.message, timeout=self._calls.timeout_s, metadata=self._metadata)
        except grpc.RpcError as error:
            if self._closed:
                raise closed(self.url) from None
            raise self._calls.refused(str(error.code()), error.details(), call.model) from None
        except ValueError:
            if self._closed:  # "Cannot invoke RPC on closed channel!"
                raise closed(self.url) from None
            raise
        return call.read(answer)
