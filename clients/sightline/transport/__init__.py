"""One way to talk to a Triton server, whatever the protocol: `connect(url)` gives a `Transport`, `connect_async(url)` an `AsyncTransport`.

This package is the only place that imports tritonclient. It speaks in plain values (`ServedVersion`, `ServedConfig`, `InferResult`)
and in the error tree; nothing of a protocol leaks out of it. `sightline.testing` has one of each for your own tests.

What a call sends and how its answer is read stands once for each protocol (`http_calls`, `grpc_calls`), without any input or output; the
four transports carry such calls out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Protocol, Self, runtime_checkable

import numpy as np
import numpy.typing as npt

from sightline.transport.address import Address, Tls, parse_url

__all__ = [
    "Address",
    "AsyncTransport",
    "InferResult",
    "InstanceGroup",
    "ModelStatistics",
    "ServedConfig",
    "ServedVersion",
    "ServerMetadata",
    "ServerTransport",
    "TensorSpec",
    "TimedResult",
    "Tls",
    "Transport",
    "connect",
    "connect_async",
    "parse_url",
]

NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})


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
class ServerMetadata:
    """What the server says of itself."""

    name: str
    version: str


@dataclass(frozen=True)
class ModelStatistics:
    """What a version of a model did since the server started: Triton's statistics extension, in seconds, summed up over its requests.

    A request that was answered together with others counts all the time that their batch took.
    """

    requests: int
    """That succeeded, cache hits included."""
    server_s: float
    """From the request's arrival at the model's scheduler to its answer; the parts below are most of it."""
    queue_s: float
    compute_input_s: float
    compute_infer_s: float
    compute_output_s: float

    @property
    def compute_s(self) -> float:
        """In the model, with the copies in and out."""
        return self.compute_input_s + self.compute_infer_s + self.compute_output_s

    def since(self, before: "ModelStatistics") -> "ModelStatistics":
        """Return what was done after `before` was read."""
        return ModelStatistics(
            self.requests - before.requests,
            self.server_s - before.server_s,
            self.queue_s - before.queue_s,
            self.compute_input_s - before.compute_input_s,
            self.compute_infer_s - before.compute_infer_s,
            self.compute_output_s - before.compute_output_s,
        )


@dataclass(frozen=True)
class InstanceGroup:
    """Copies of a model on one kind of device."""

    kind: str
    """Triton's: "KIND_CPU", "KIND_GPU", "KIND_AUTO"."""
    count: int


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
    samples: Mapping[str, str] = field(default_factory=dict)
    """Version → its sealed golden sample, unread, under `parameters["golden_sample_<version>"]` (`sightline.golden_sample`)."""
    backend: str = ""
    instance_groups: tuple[InstanceGroup, ...] = ()
    batches: bool = False
    """Whether requests are answered together (dynamic batching)."""
    queue_delay_us: int = 0
    """How long a request may wait for others."""
    parameters: Mapping[str, str] = field(default_factory=dict)
    """All others, as the backend's settings."""


@dataclass(frozen=True)
class InferResult:
    """What the server answered to one request."""

    values: npt.NDArray[np.float32]
    """float32 [N, classes], as the server sent it: not yet checked."""
    version: str
    """The version of the model that answered."""


@dataclass(frozen=True)
class TimedResult:
    """An answer, and where its time went."""

    result: InferResult
    serialise_s: float
    """To write the request and to read the answer, in this process."""
    call_s: float
    """In between: on the way, in the server, and on the way back. gRPC's own encoding of the message is part of it."""


@runtime_checkable
class Transport(Protocol):
    """What every protocol can do. Safe to share between threads. Each call ends within `timeout_s` seconds.

    Every method raises ServerUnavailable if nobody answers, DeadlineExceeded if no answer comes in time, ModelNotFound for an
    unknown model or version, ModelError if the model refuses the request, UsageError after `close`, ServerError for everything else.
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
        """Close all connections; calls in flight raise UsageError. Closing twice is allowed."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


@runtime_checkable
class ServerTransport(Transport, Protocol):
    """A `Transport` to a real server, which can also be asked what it is and what it did. Raises as `Transport` does."""

    def server(self) -> ServerMetadata:
        """Return what the server says of itself."""
        ...

    def statistics(self, model: str, version: str) -> ModelStatistics:
        """Return what a version of a model did since the server started."""
        ...

    def infer_timed(self, model: str, version: str, input_name: str, pixels: npt.NDArray[np.uint8], output_name: str) -> TimedResult:
        """As `infer`, and say how long what took."""
        ...


@runtime_checkable
class AsyncTransport(Protocol):
    """`Transport` for tasks of one event loop: the same methods, to be awaited. A call that is cancelled leaves nothing behind."""

    url: str

    async def models(self) -> list[ServedVersion]:
        """As `Transport.models`."""
        ...

    async def config(self, model: str, version: str = "") -> ServedConfig:
        """As `Transport.config`."""
        ...

    async def infer(self, model: str, version: str, input_name: str, pixels: npt.NDArray[np.uint8], output_name: str) -> InferResult:
        """As `Transport.infer`."""
        ...

    async def infer_encoded(self, model: str, version: str, input_name: str, images: Sequence[bytes], output_name: str) -> InferResult:
        """As `Transport.infer_encoded`."""
        ...

    async def labels(self, model: str, input_name: str, image: bytes, output_name: str, classes: int) -> dict[int, str]:
        """As `Transport.labels`."""
        ...

    async def aclose(self) -> None:
        """Close all connections; calls in flight raise UsageError. Closing twice is allowed."""
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *_: object) -> None: ...


def connect(url: str, timeout_s: float = 10.0, tls: Tls | None = None, headers: Mapping[str, str] = NO_HEADERS) -> ServerTransport:
    """Open a transport to `grpc://host:port`, `grpcs://…`, `http://host:port/path` or `https://…`.

    Nothing is sent yet. `timeout_s` bounds each later call, and `headers` go with each (over gRPC as metadata). Raises UsageError for an
    address that is none, and for a header that cannot be sent.
    """
    address = parse_url(url)
    if address.protocol == "grpc":
        from sightline.transport.over_grpc import GrpcTransport

        return GrpcTransport(address, timeout_s, tls or Tls(), headers)
    from sightline.transport.over_http import HttpTransport

    return HttpTransport(address, timeout_s, tls or Tls(), headers)


def connect_async(url: str, timeout_s: float = 10.0, tls: Tls | None = None, headers: Mapping[str, str] = NO_HEADERS) -> AsyncTransport:
    """Open a transport for the tasks of the running event loop, as `connect` does. Nothing is sent yet, so there is nothing to await."""
    address = parse_url(url)
    if address.protocol == "grpc":
        from sightline.transport.over_grpc_async import AsyncGrpcTransport

        return AsyncGrpcTransport(address, timeout_s, tls or Tls(), headers)
    from sightline.transport.over_http_async import AsyncHttpTransport

    return AsyncHttpTransport(address, timeout_s, tls or Tls(), headers)
