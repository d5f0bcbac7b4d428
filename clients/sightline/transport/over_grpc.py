"""gRPC: one channel for all threads, with a deadline on each call."""

from collections.abc import Callable
from typing import TypeVar

import grpc
import tritonclient.grpc
from tritonclient.utils import InferenceServerException

from sightline.transport.address import Address, Tls
from sightline.transport.calls import MAX_ANSWER_BYTES, TritonClient, TritonTransport, tls_refused
from sightline.transport.failures import closed, from_triton

Value = TypeVar("Value")


class GrpcTransport(TritonTransport):
    """`Transport` over gRPC."""

    tritonclient = tritonclient.grpc

    def __init__(self, address: Address, timeout_s: float, tls: Tls) -> None:
        super().__init__(address, timeout_s, {"client_timeout": timeout_s}, as_json={"as_json": True})
        self._client = tritonclient.grpc.InferenceServerClient(
            f"{address.host}:{address.port}",
            creds=_credentials(tls) if address.secure else None,
            channel_args=[
                ("grpc.max_send_message_length", -1),
                ("grpc.max_receive_message_length", MAX_ANSWER_BYTES),
                # A server that comes back is found again within a second, not after gRPC's growing pauses.
                ("grpc.initial_reconnect_backoff_ms", 100),
                ("grpc.max_reconnect_backoff_ms", 1000),
            ],
        )

    def close(self) -> None:
        """Close the channel."""
        self._client.close()

    def _call(self, call: Callable[[TritonClient], Value], model: str = "") -> Value:
        try:
            return call(self._client)
        except InferenceServerException as error:
            raise from_triton(error, self.url, self._timeout_s, model) from None
        except ValueError:  # "Cannot invoke RPC on closed channel!"
            raise closed(self.url) from None

    def _read_version(self, response: object) -> str:
        return str(getattr(response, "model_version"))  # noqa: B009 - of tritonclient's message, which has no types


def _credentials(tls: Tls) -> grpc.ChannelCredentials:
    try:
        authority, key, certificate = (None if file is None else file.read_bytes() for file in (tls.ca_file, tls.key_file, tls.cert_file))
    except OSError as error:
        raise tls_refused(error) from None
    return grpc.ssl_channel_credentials(authority, key, certificate)
