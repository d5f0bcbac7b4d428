"""One way to talk to a Triton server, whatever the protocol: `connect(url)` gives a `Transport`.

This package is the only place that imports tritonclient. It speaks in plain values (`ServedVersion`, `ServedConfig`, `InferResult`)
and in the error tree; nothing of a protocol leaks out of it. `sightline.testing` has one for your own tests.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, Self, runtime_checkable

import numpy as np
import numpy.typing as npt

from sightline.transport.address import Address, Tls, parse_url

__all__ = ["Address", "InferResult", "ServedConfig", "ServedVersion", "TensorSpec", "Tls", "Transport", "connect", "parse_url"]


@dataclass(frozen=True)
class ServedVersion:
    """A version of a model that the server has loaded."""

    name: str
    version: str
    inferences: int
    """Images answered since the server started, those included that it was warmed up with."""


@dataclass(frozen=True)
class TensorSpec:
    """Name, Triton's datatype ("TYPE_UINT8") and dimensions without the batch."""

    name: str
    datatype: str
    dims: tuple[int, ...]


@dataclass(frozen=True)
class ServedConfig:
    """What of a served model's configuration concerns a client."""

    name: str
    max_batch_size: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    sealed_card: str | None
    """The text under `parameters["model_card"]`, unread; None if there is none."""
    pictures_of: str | None = None
    """The same of a model that takes encoded images for another one, under `parameters["pictures_of"]`."""


@dataclass(frozen=True)
class InferResult:
    """What the server answered to one request."""

    values: npt.NDArray[np.float32]
    """float32 [N, classes], as the server sent it: not yet checked."""
    version: str
    """The version of the model that answered."""


@runtime_checkable
class Transport(Protocol):
    """What every protocol can do. Safe to share between threads. Each call ends within `timeout_s` seconds.

    Every method raises ServerUnavailable if nobody answers, DeadlineExceeded if no answer comes in time, ModelNotFound for an
    unknown model or version, ModelError if the model refuses the request, ServerError for everything else.
    """

    url: str

    def models(self) -> list[ServedVersion]:
        """List all loaded models, by name and version."""
        ...

    def config(self, model: str, version: str = "") -> ServedConfig:
        """Return the configuration of a model; `version` "" lets the server choose."""
        ...

    def infer(self, model: str, version: str, input_name: str, pixels: npt.NDArray[np.uint8], output_name: str) -> InferResult:
        """Answer one batch: uint8 pixels [N, H, W, C] to float32 [N, classes]."""
        ...

    def infer_encoded(self, model: str, version: str, input_name: str, images: Sequence[bytes], output_name: str) -> InferResult:
        """Answer one batch of encoded images, BYTES [N, 1], to float32 [N, classes]."""
        ...

    def labels(self, model: str, input_name: str, image: bytes, output_name: str, classes: int) -> dict[int, str]:
        """Return what the server itself calls each class of a model that takes encoded images, by asking about `image`."""
        ...

    def close(self) -> None:
        """Close all connections. Closing twice is allowed."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


def connect(url: str, timeout_s: float = 10.0, tls: Tls | None = None) -> Transport:
    """Open a transport to `grpc://host:port`, `grpcs://…`, `http://host:port/path` or `https://…`.

    Nothing is sent yet. `timeout_s` bounds each later call. Raises UsageError for an address that is none.
    """
    address = parse_url(url)
    if address.protocol == "grpc":
        from sightline.transport.over_grpc import GrpcTransport

        return GrpcTransport(address, timeout_s, tls or Tls())
    from sightline.transport.over_http import HttpTransport

    return HttpTransport(address, timeout_s, tls or Tls())
