"""HTTP: one connection for each thread (tritonclient's HTTP client must not be shared), bounded answers, a deadline on each call."""

import threading
from collections.abc import Callable, Sequence
from http.client import HTTPException
from typing import Any, Final, Self, TypeVar

import gevent
import gevent.ssl
import numpy as np
import numpy.typing as npt
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from sightline.card import CARD_KEY, MAX_SEALED_BYTES, PICTURES_OF
from sightline.errors import ServerError, UsageError
from sightline.transport import InferResult, ServedConfig, ServedVersion, TensorSpec
from sightline.transport.address import Address, Tls
from sightline.transport.encoded import as_bytes
from sightline.transport.failures import closed, deadline, from_triton, unavailable, understood

Value = TypeVar("Value")

MAX_ANSWER_BYTES: Final = 2 * MAX_SEALED_BYTES
"""Of one answer from the server, as over gRPC."""


class HttpTransport:
    """`Transport` over HTTP."""

    def __init__(self, address: Address, timeout_s: float, tls: Tls) -> None:
        self.url = address.url
        self._timeout_s = timeout_s
        self._address = address
        self._context = _tls_context(tls) if address.secure else None
        self._own = threading.local()
        self._opened: list[_BoundedClient] = []
        self._lock = threading.Lock()
        self._closed = False

    def models(self) -> list[ServedVersion]:
        """All loaded models."""
        answer = self._call(lambda client: client.get_inference_statistics())
        return understood(
            lambda: [ServedVersion(str(m["name"]), str(m["version"]), int(m["inference_count"])) for m in answer["model_stats"]], self.url
        )

    def config(self, model: str, version: str = "") -> ServedConfig:
        """The configuration of a model."""
        answer = self._call(lambda client: client.get_model_config(model, version), model)
        return understood(lambda: _config(answer), self.url)

    def infer(self, model: str, version: str, input_name: str, pixels: npt.NDArray[np.uint8], output_name: str) -> InferResult:
        """Answer one batch."""
        tensor = triton.InferInput(input_name, list(pixels.shape), "UINT8")
        tensor.set_data_from_numpy(pixels, binary_data=True)
        return self._answer(model, version, tensor, output_name)

    def infer_encoded(self, model: str, version: str, input_name: str, images: Sequence[bytes], output_name: str) -> InferResult:
        """Answer one batch of encoded images."""
        tensor = triton.InferInput(input_name, [len(images), 1], "BYTES")
        tensor.set_data_from_numpy(as_bytes(images), binary_data=True)
        return self._answer(model, version, tensor, output_name)

    def _answer(self, model: str, version: str, tensor: Any, output_name: str) -> InferResult:
        wanted = [triton.InferRequestedOutput(output_name, binary_data=True)]
        timeout_us = max(1, int(self._timeout_s * 1_000_000))
        answer = self._call(lambda client: client.infer(model, [tensor], version, outputs=wanted, timeout=timeout_us), model)
        return understood(lambda: InferResult(answer.as_numpy(output_name), str(answer.get_response()["model_version"])), self.url)

    def close(self) -> None:
        """Close the connections of all threads."""
        with self._lock:
            self._closed = True
            opened, self._opened = self._opened, []
        for client in opened:
            client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _client(self) -> "_BoundedClient":
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

    def _call(self, call: Callable[["_BoundedClient"], Value], model: str = "") -> Value:
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
            raise ServerError(
                f"the answer of {self.url} is not one that Triton gives ({error}): is something else listening there?"
            ) from None

    def _forget(self, client: "_BoundedClient") -> None:
        """Drop a connection in an unknown state; the thread's next call opens another."""
        self._own.client = None
        with self._lock:
            if client in self._opened:
                self._opened.remove(client)
        client.close()


class _BoundedClient(triton.InferenceServerClient):  # type: ignore[misc]  # tritonclient has no types
    """Reads no more of an answer than MAX_ANSWER_BYTES, and nothing compressed."""

    def _get(self, *arguments: Any, **named: Any) -> "_Body":
        return _Body(super()._get(*arguments, **named))

    def _post(self, *arguments: Any, **named: Any) -> "_Body":
        return _Body(super()._post(*arguments, **named))


class _Body:
    """The part of geventhttpclient's response that tritonclient uses, already read."""

    def __init__(self, response: Any) -> None:
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


def _tls_context(tls: Tls) -> Any:
    try:
        context = gevent.ssl.create_default_context(cafile=None if tls.ca_file is None else str(tls.ca_file))
        if tls.cert_file is not None:
            context.load_cert_chain(str(tls.cert_file), None if tls.key_file is None else str(tls.key_file))
    except OSError as error:
        raise UsageError(f"a TLS file cannot be read: {error}") from None
    return context


def _config(config: Any) -> ServedConfig:
    sealed = {key: str(value["string_value"]) for key, value in config.get("parameters", {}).items() if key in (CARD_KEY, PICTURES_OF)}

    def spec(tensor: Any) -> TensorSpec:
        return TensorSpec(str(tensor["name"]), str(tensor["data_type"]), tuple(int(dim) for dim in tensor["dims"]))

    return ServedConfig(
        name=str(config["name"]),
        max_batch_size=int(config["max_batch_size"]),
        inputs=tuple(spec(tensor) for tensor in config["input"]),
        outputs=tuple(spec(tensor) for tensor in config["output"]),
        sealed_card=sealed.get(CARD_KEY),
        pictures_of=sealed.get(PICTURES_OF),
    )
