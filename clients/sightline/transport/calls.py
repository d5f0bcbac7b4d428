"""The calls of `Transport` in terms of tritonclient, whose gRPC and HTTP clients have the same methods and classes."""

import itertools
import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import ClassVar, Final, Protocol, Self, TypeVar

import numpy as np
import numpy.typing as npt

from sightline.card import MAX_SEALED_BYTES
from sightline.errors import UsageError
from sightline.transport import InferResult, ServedConfig, ServedVersion
from sightline.transport.address import Address
from sightline.transport.answers import served_config, served_versions
from sightline.transport.failures import mixed_up, understood
from sightline.transport.forks import renew_after_fork

Value = TypeVar("Value")

MAX_ANSWER_BYTES: Final = 2 * MAX_SEALED_BYTES
"""Of one answer from the server: a configuration with the largest card fits twice."""


class TritonResult(Protocol):
    """tritonclient's answer to one request; `get_response` gives its protocol's own form of it."""

    def as_numpy(self, name: str) -> npt.NDArray[np.float32]:
        """Return an output's values."""
        ...

    def get_response(self) -> object:
        """Return the whole answer."""
        ...


class TritonClient(Protocol):
    """What is called of tritonclient's clients; both have more."""

    def get_inference_statistics(self, **options: float) -> object:
        """Return what all models have done."""
        ...

    def get_model_config(self, model_name: str, model_version: str, **options: float) -> object:
        """Return the configuration of a model."""
        ...

    def infer(
        self,
        model_name: str,
        inputs: Sequence[object],
        model_version: str,
        outputs: Sequence[object],
        request_id: str,
        *,
        timeout: int,
        **options: float,
    ) -> TritonResult:
        """Answer one request."""
        ...

    def close(self) -> None:
        """Close its connections."""
        ...


class TritonTransport(ABC):
    """What the two protocols share. A protocol says how a call is made and how its answers are read."""

    tritonclient: ClassVar[ModuleType]
    """`tritonclient.grpc` or `tritonclient.http`."""

    def __init__(self, address: Address, timeout_s: float, options: Mapping[str, float], as_json: Mapping[str, bool]) -> None:
        """Prepare calls that end within `timeout_s`.

        Each of the client's methods gets `options` too, and those whose answer is to be JSON get `as_json`.
        """
        self.url = address.url
        self._timeout_s = timeout_s
        self._options = options
        self._json_options = {**options, **as_json}
        self._ids, self._number = _new_ids(), itertools.count()
        renew_after_fork(self)

    def renew(self) -> None:
        """Begin anew in a forked process: with ids of its own, and with connections of its own."""
        self._ids = _new_ids()

    def models(self) -> list[ServedVersion]:
        """List all loaded models, by name and version."""
        statistics = self._call(lambda client: client.get_inference_statistics(**self._json_options))
        return understood(lambda: served_versions(statistics), self.url)

    def config(self, model: str, version: str = "") -> ServedConfig:
        """Return the configuration of a model; `version` "" lets the server choose."""
        config = self._call(lambda client: client.get_model_config(model, version, **self._json_options), model)
        return understood(lambda: served_config(config), self.url)

    def infer(self, model: str, version: str, input_name: str, pixels: npt.NDArray[np.uint8], output_name: str) -> InferResult:
        """Answer one batch: uint8 pixels [N, H, W, C] to float32 [N, classes]."""
        tensor = self.tritonclient.InferInput(input_name, list(pixels.shape), "UINT8")
        return self._infer(model, version, tensor.set_data_from_numpy(pixels), output_name)

    def infer_encoded(self, model: str, version: str, input_name: str, images: Sequence[bytes], output_name: str) -> InferResult:
        """Answer one batch of encoded images, BYTES [N, 1], to float32 [N, classes]."""
        column = np.empty((len(images), 1), dtype=np.object_)
        column[:, 0] = list(images)
        tensor = self.tritonclient.InferInput(input_name, [len(images), 1], "BYTES")
        return self._infer(model, version, tensor.set_data_from_numpy(column), output_name)

    def labels(self, model: str, input_name: str, image: bytes, output_name: str, classes: int) -> dict[int, str]:
        """Return what Triton calls each class of a model that takes encoded images: its classification extension, from labels.txt."""
        tensor = self.tritonclient.InferInput(input_name, [1, 1], "BYTES").set_data_from_numpy(np.array([[image]], dtype=np.object_))
        result = self._ask(model, "", tensor, self.tritonclient.InferRequestedOutput(output_name, class_count=classes))

        def read() -> dict[int, str]:
            self._demand_own(result)
            # Each as `probability:index:label`, or without the last where there is no label.
            entries = [bytes(entry).decode().split(":", 2) for entry in result.answer.as_numpy(output_name).reshape(-1)]
            return {int(entry[1]): entry[2] if len(entry) == 3 else "" for entry in entries}

        return understood(read, self.url)

    def _infer(self, model: str, version: str, tensor: object, output_name: str) -> InferResult:
        result = self._ask(model, version, tensor, self.tritonclient.InferRequestedOutput(output_name))
        return understood(lambda: InferResult(result.answer.as_numpy(output_name), self._demand_own(result)), self.url)

    def _ask(self, model: str, version: str, tensor: object, output: object) -> "_Asked":
        request_id = f"{self._ids}-{next(self._number)}"
        timeout_us = max(1, int(self._timeout_s * 1_000_000))
        answer = self._call(
            lambda client: client.infer(model, [tensor], version, [output], request_id, timeout=timeout_us, **self._options), model
        )
        return _Asked(request_id, answer)

    def _demand_own(self, asked: "_Asked") -> str:
        """Return the version that answered. Raises ServerError if it is the answer to another request."""
        answered, version = self._identity(asked.answer.get_response())
        if answered != asked.request_id:
            self._distrust()
            raise mixed_up(self.url, answered)
        return version

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @abstractmethod
    def close(self) -> None:
        """Close all connections. Closing twice is allowed."""

    @abstractmethod
    def _call(self, call: Callable[[TritonClient], Value], model: str = "") -> Value:
        """Call with tritonclient's client; what it raises becomes a member of the error tree."""

    @abstractmethod
    def _identity(self, response: object) -> tuple[str, str]:
        """Return which request an answer is to ("" if it names none), and which version of the model answered."""

    def _distrust(self) -> None:  # noqa: B027 - over gRPC, one connection takes all requests
        """Use no connection again that may hold an answer to somebody else."""


def _new_ids() -> str:
    """Return what the ids of a process's requests begin with: no other process, on whatever machine, has the same."""
    return secrets.token_hex(8)


@dataclass(frozen=True)
class _Asked:
    """A request and what came for it."""

    request_id: str
    answer: TritonResult


def tls_refused(error: OSError) -> UsageError:
    """Report a certificate or key that cannot be read or used."""
    return UsageError(f"a TLS file cannot be read: {error}")
