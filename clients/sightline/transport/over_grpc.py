"""gRPC: one channel for all threads, with a deadline on each call."""

import threading
from collections.abc import Callable
from typing import Final, Protocol, TypeVar, cast

import grpc
import tritonclient.grpc
from tritonclient.utils import InferenceServerException

from sightline.transport.address import Address, Tls
from sightline.transport.calls import MAX_ANSWER_BYTES, TritonClient, TritonTransport, tls_refused
from sightline.transport.failures import closed, from_triton
from sightline.transport.forks import IN_FLIGHT

Value = TypeVar("Value")

CHANNEL_OPTIONS: Final = {
    "grpc.max_send_message_length": -1,
    "grpc.max_receive_message_length": MAX_ANSWER_BYTES,
    # In a forked process a channel of its own, and not the connection that its parent has.
    "grpc.use_local_subchannel_pool": 1,
    # A server that comes back is found again within a second, not after gRPC's growing pauses.
    "grpc.initial_reconnect_backoff_ms": 100,
    "grpc.max_reconnect_backoff_ms": 1000,
}

_INHERITED: Final[list[object]] = []
"""Channels of the process that this one was forked from, which nobody may use or end here."""


class GrpcTransport(TritonTransport):
    """`Transport` over gRPC."""

    tritonclient = tritonclient.grpc

    def __init__(self, address: Address, timeout_s: float, tls: Tls) -> None:
        self._target = f"{address.host}:{address.port}"
        self._credentials = _credentials(tls) if address.secure else None
        self._lock = threading.Lock()
        self._channel: TritonClient | None = None
        self._closed = False
        super().__init__(address, timeout_s, {"client_timeout": timeout_s}, as_json={"as_json": True})

    def close(self) -> None:
        """Close the channel."""
        with self._lock:
            self._closed = True
            channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()

    def renew(self) -> None:
        """Begin anew in a forked process."""
        super().renew()
        if self._channel is not None:
            # gRPC's threads are not there: to close the channel would wait for them.
            _INHERITED.append(self._channel)
        self._lock, self._channel = threading.Lock(), None

    def _client(self) -> TritonClient:
        with self._lock:
            if self._closed:
                raise closed(self.url)
            if self._channel is None:
                self._channel = tritonclient.grpc.InferenceServerClient(
                    self._target, creds=self._credentials, channel_args=list(CHANNEL_OPTIONS.items())
                )
            return self._channel

    def _call(self, call: Callable[[TritonClient], Value], model: str = "") -> Value:
        try:
            with IN_FLIGHT:
                return call(self._client())
        except InferenceServerException as error:
            raise from_triton(error, self.url, self._timeout_s, model) from None
        except ValueError:  # "Cannot invoke RPC on closed channel!"
            raise closed(self.url) from None

    def _identity(self, response: object) -> tuple[str, str]:
        message = cast("_Message", response)
        return message.id, message.model_version


class _Message(Protocol):
    """What is read of tritonclient's message."""

    id: str
    model_version: str


def _credentials(tls: Tls) -> grpc.ChannelCredentials:
    try:
        authority, key, certificate = (None if file is None else file.read_bytes() for file in (tls.ca_file, tls.key_file, tls.cert_file))
    except OSError as error:
        raise tls_refused(error) from None
    return grpc.ssl_channel_credentials(authority, key, certificate)
