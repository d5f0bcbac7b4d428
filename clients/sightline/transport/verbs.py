"""The methods of a transport, once blocking and once awaited: each makes its call (`sightline.transport.calls`) and has it carried out."""

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Generic, Self

import numpy as np
import numpy.typing as npt

from sightline.transport import InferResult, ModelStatistics, ServedConfig, ServedVersion, ServerMetadata, TimedResult
from sightline.transport.calls import Answer, Call, Calls, Request, Value


class BlockingTransport(ABC, Generic[Request, Answer]):
    """A `Transport`, but for how a call is carried out."""

    def __init__(self, calls: Calls[Request, Answer]) -> None:
        self.url, self._calls = calls.url, calls

    def models(self) -> list[ServedVersion]:
        """List all loaded models, by name and version."""
        return self._carry_out(self._calls.models())

    def config(self, model: str, version: str = "") -> ServedConfig:
        """Return the configuration of a model; `version` "" lets the server choose."""
        return self._carry_out(self._calls.config(model, version))

    def infer(self, model: str, version: str, input_name: str, pixels: npt.NDArray[np.uint8], output_name: str) -> InferResult:
        """Answer one batch: uint8 pixels [N, H, W, C] to float32 [N, classes]."""
        return self._carry_out(self._calls.infer(model, version, input_name, pixels, output_name))

    def server(self) -> ServerMetadata:
        """Return what the server says of itself."""
        return self._carry_out(self._calls.server())

    def statistics(self, model: str, version: str) -> ModelStatistics:
        """Return what a version of a model did since the server started."""
        return self._carry_out(self._calls.statistics(model, version))

    def infer_timed(self, model: str, version: str, input_name: str, pixels: npt.NDArray[np.uint8], output_name: str) -> TimedResult:
        """As `infer`, and say how long what took."""
        began_s = time.perf_counter()
        call = self._calls.infer(model, version, input_name, pixels, output_name)
        written_s = time.perf_counter()
        read_s = 0.0

        def read(answer: Answer) -> InferResult:
            nonlocal read_s
            came_s = time.perf_counter()
            result = call.read(answer)
            read_s = time.perf_counter() - came_s
            return result

        result = self._carry_out(replace(call, read=read))
        return TimedResult(result, written_s - began_s + read_s, time.perf_counter() - written_s - read_s)

    def infer_encoded(self, model: str, version: str, input_name: str, images: Sequence[bytes], output_name: str) -> InferResult:
        """Answer one batch of encoded images, BYTES [N, 1], to float32 [N, classes]."""
        return self._carry_out(self._calls.infer_encoded(model, version, input_name, images, output_name))

    def labels(self, model: str, input_name: str, image: bytes, output_name: str, classes: int) -> dict[int, str]:
        """Return what Triton calls each class of a model that takes encoded images."""
        return self._carry_out(self._calls.labels(model, input_name, image, output_name, classes))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @abstractmethod
    def close(self) -> None:
        """Close all connections; calls in flight raise UsageError. Closing twice is allowed."""

    @abstractmethod
    def _carry_out(self, call: Call[Request, Answer, Value]) -> Value:
        """Send a call and read its answer; whatever goes wrong becomes a member of the error tree."""


class AwaitedTransport(ABC, Generic[Request, Answer]):
    """An `AsyncTransport`, but for how a call is carried out."""

    def __init__(self, calls: Calls[Request, Answer]) -> None:
        self.url, self._calls = calls.url, calls

    async def models(self) -> list[ServedVersion]:
        """List all loaded models, by name and version."""
        return await self._carry_out(self._calls.models())

    async def config(self, model: str, version: str = "") -> ServedConfig:
        """Return the configuration of a model; `version` "" lets the server choose."""
        return await self._carry_out(self._calls.config(model, version))

    async def infer(self, model: str, version: str, input_name: str, pixels: npt.NDArray[np.uint8], output_name: str) -> InferResult:
        """Answer one batch: uint8 pixels [N, H, W, C] to float32 [N, classes]."""
        return await self._carry_out(self._calls.infer(model, version, input_name, pixels, output_name))

    async def infer_encoded(self, model: str, version: str, input_name: str, images: Sequence[bytes], output_name: str) -> InferResult:
        """Answer one batch of encoded images, BYTES [N, 1], to float32 [N, classes]."""
        return await self._carry_out(self._calls.infer_encoded(model, version, input_name, images, output_name))

    async def labels(self, model: str, input_name: str, image: bytes, output_name: str, classes: int) -> dict[int, str]:
        """Return what Triton calls each class of a model that takes encoded images."""
        return await self._carry_out(self._calls.labels(model, input_name, image, output_name, classes))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    @abstractmethod
    async def aclose(self) -> None:
        """Close all connections; calls in flight raise UsageError. Closing twice is allowed."""

    @abstractmethod
    async def _carry_out(self, call: Call[Request, Answer, Value]) -> Value:
        """Send a call and read its answer; whatever goes wrong becomes a member of the error tree."""
