"""gRPC: one channel for all threads, with a deadline on each call."""

from collections.abc import Callable, Sequence
from typing import Any, Final, Self, TypeVar

import grpc
import numpy as np
import numpy.typing as npt
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from sightline.card import CARD_KEY, MAX_SEALED_BYTES, PICTURES_OF
from sightline.errors import UsageError
from sightline.transport import InferResult, ServedConfig, ServedVersion, TensorSpec
from sightline.transport.address import Address, Tls
from sightline.transport.encoded import as_bytes
from sightline.transport.failures import closed, from_triton, understood

Value = TypeVar("Value")

MAX_ANSWER_BYTES: Final = 2 * MAX_SEALED_BYTES
"""Of one message from the server: a configuration with the largest card fits twice."""


class GrpcTransport:
    """`Transport` over gRPC."""

    def __init__(self, address: Address, timeout_s: float, tls: Tls) -> None:
        self.url = address.url
        self._timeout_s = timeout_s
        self._client = triton.InferenceServerClient(
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

    def models(self) -> list[ServedVersion]:
        """All loaded models."""
        answer = self._call(lambda: self._client.get_inference_statistics(client_timeout=self._timeout_s))
        return understood(lambda: [ServedVersion(m.name, m.version, int(m.inference_count)) for m in answer.model_stats], self.url)

    def config(self, model: str, version: str = "") -> ServedConfig:
        """The configuration of a model."""
        answer = self._call(lambda: self._client.get_model_config(model, version, client_timeout=self._timeout_s), model)
        return understood(lambda: _config(answer.config), self.url)

    def infer(self, model: str, version: str, input_name: str, pixels: npt.NDArray[np.uint8], output_name: str) -> InferResult:
        """Answer one batch."""
        tensor = triton.InferInput(input_name, list(pixels.shape), "UINT8")
        tensor.set_data_from_numpy(pixels)
        return self._answer(model, version, tensor, output_name)

    def infer_encoded(self, model: str, version: str, input_name: str, images: Sequence[bytes], output_name: str) -> InferResult:
        """Answer one batch of encoded images."""
        tensor = triton.InferInput(input_name, [len(images), 1], "BYTES")
        tensor.set_data_from_numpy(as_bytes(images))
        return self._answer(model, version, tensor, output_name)

    def _answer(self, model: str, version: str, tensor: Any, output_name: str) -> InferResult:
        wanted = [triton.InferRequestedOutput(output_name)]
        answer = self._call(
            lambda: self._client.infer(
                model, [tensor], version, outputs=wanted, client_timeout=self._timeout_s, timeout=_us(self._timeout_s)
            ),
            model,
        )
        return understood(lambda: InferResult(answer.as_numpy(output_name), str(answer.get_response().model_version)), self.url)

    def close(self) -> None:
        """Close the channel."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _call(self, call: Callable[[], Value], model: str = "") -> Value:
        try:
            return call()
        except InferenceServerException as error:
            raise from_triton(error, self.url, self._timeout_s, model) from None
        except ValueError:  # "Cannot invoke RPC on closed channel!"
            raise closed(self.url) from None


def _credentials(tls: Tls) -> Any:
    try:
        authority, key, certificate = (None if file is None else file.read_bytes() for file in (tls.ca_file, tls.key_file, tls.cert_file))
    except OSError as error:
        raise UsageError(f"a TLS file cannot be read: {error}") from None
    return grpc.ssl_channel_credentials(authority, key, certificate)


def _us(timeout_s: float) -> int:
    return max(1, int(timeout_s * 1_000_000))


def _config(config: Any) -> ServedConfig:
    names = dict(config.DESCRIPTOR.fields_by_name["input"].message_type.fields_by_name["data_type"].enum_type.values_by_number)
    sealed, of = (config.parameters[key].string_value if key in config.parameters else None for key in (CARD_KEY, PICTURES_OF))

    def spec(tensor: Any) -> TensorSpec:
        return TensorSpec(tensor.name, names[tensor.data_type].name, tuple(tensor.dims))

    return ServedConfig(config.name, config.max_batch_size, tuple(map(spec, config.input)), tuple(map(spec, config.output)), sealed, of)
