"""What the methods of a transport send and how what came is read, without any input or output: blocking or awaited, they are the same.

A protocol adds how a question is written (`grpc_calls`, `http_calls`); a transport carries a `Call` out.
"""

import itertools
import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
from tritonclient.utils import InferenceServerException

from sightline.card import MAX_SEALED_BYTES
from sightline.errors import SightlineError
from sightline.transport import InferResult, ModelStatistics, ServedConfig, ServedVersion, ServerMetadata
from sightline.transport.answers import model_statistics, served_config, served_versions, server_metadata
from sightline.transport.failures import from_triton, mixed_up, not_triton
from sightline.transport.forks import renew_after_fork
from sightline.transport.headers import without_values

Request = TypeVar("Request")
Answer = TypeVar("Answer")
Value = TypeVar("Value")
Result = TypeVar("Result")

MAX_ANSWER_BYTES: Final = 2 * MAX_SEALED_BYTES
"""Of one answer from the server: a configuration with the largest card fits twice."""


@dataclass(frozen=True)
class Call(Generic[Request, Answer, Value]):
    """One call: what is sent, and how what comes is read."""

    request: Request
    read: Callable[[Answer], Value]
    """Raises a member of the error tree for whatever is not a good answer to this very request."""
    model: str = ""
    """The model that it is about, for sentences; "" if none."""


@dataclass(frozen=True)
class Question:
    """One inference, before a protocol writes it."""

    model: str
    version: str
    input_name: str
    datatype: str
    """Triton's: UINT8, or BYTES for encoded images."""
    values: npt.NDArray[np.uint8] | npt.NDArray[np.object_]
    output_name: str
    request_id: str
    timeout_us: int
    classes: int = 0
    """Ask for so many classes by Triton's classification extension; 0 asks for the numbers."""


class TritonResult(Protocol):
    """tritonclient's answer to one request, of either protocol."""

    def as_numpy(self, name: str) -> npt.NDArray[np.float32]:
        """Return an output's values."""
        ...


@dataclass(frozen=True)
class Reply:
    """What came for a question."""

    request_id: str
    """Of the request that it is an answer to; "" if it names none."""
    version: str
    result: TritonResult


class Calls(ABC, Generic[Request, Answer]):
    """The calls of a transport to `url`, each to end within `timeout_s`. Values of `headers` stand in no sentence."""

    def __init__(self, url: str, timeout_s: float, headers: Mapping[str, str]) -> None:
        self.url, self.timeout_s = url, timeout_s
        self._headers = headers
        self._number = itertools.count()
        self.renew()
        renew_after_fork(self)

    def renew(self) -> None:
        """Begin anew in a forked process, with ids of its own: no other process, on whatever machine, has the same."""
        self._ids = secrets.token_hex(8)

    def models(self) -> Call[Request, Answer, list[ServedVersion]]:
        """List all loaded models."""
        return Call(self._statistics(), lambda answer: _understood(lambda: served_versions(self._document(answer, "")), self.url))

    def config(self, model: str, version: str) -> Call[Request, Answer, ServedConfig]:
        """Ask for the configuration of a model."""
        return Call(
            self._configuration(model, version),
            lambda answer: _understood(lambda: served_config(self._document(answer, model)), self.url),
            model,
        )

    def server(self) -> Call[Request, Answer, ServerMetadata]:
        """Ask the server what it is."""
        return Call(self._metadata(), lambda answer: _understood(lambda: server_metadata(self._document(answer, "")), self.url))

    def statistics(self, model: str, version: str) -> Call[Request, Answer, ModelStatistics]:
        """Ask what a version of a model has done."""
        return Call(
            self._statistics(model, version),
            lambda answer: _understood(lambda: model_statistics(self._document(answer, model), model, version), self.url),
            model,
        )

    def infer(
        self, model: str, version: str, input_name: str, pixels: npt.NDArray[np.uint8], output_name: str
    ) -> Call[Request, Answer, InferResult]:
        """Ask for the answer to a batch of pixels."""
        return self._asked(self._question(model, version, input_name, pixels, output_name), self._values)

    def infer_encoded(
        self, model: str, version: str, input_name: str, images: Sequence[bytes], output_name: str
    ) -> Call[Request, Answer, InferResult]:
        """Ask for the answer to a batch of encoded images."""
        return self._asked(self._question(model, version, input_name, _column(images), output_name), self._values)

    def labels(self, model: str, input_name: str, image: bytes, output_name: str, classes: int) -> Call[Request, Answer, dict[int, str]]:
        """Ask what Triton calls each class of a model that takes encoded images: its classification extension, from labels.txt."""
        return self._asked(self._question(model, "", input_name, _column([image]), output_name, classes), _labels)

    def refused(self, status: str, words: object, model: str) -> SightlineError:
        """Return the member of the error tree for a call that the server refused; if it repeats a header's value, that is left out."""
        return from_triton(status, without_values(str(words or ""), self._headers.values()), self.url, self.timeout_s, model)

    def _question(
        self,
        model: str,
        version: str,
        input_name: str,
        values: npt.NDArray[np.uint8] | npt.NDArray[np.object_],
        output_name: str,
        classes: int = 0,
    ) -> Question:
        datatype = "BYTES" if values.dtype == np.object_ else "UINT8"
        request_id = f"{self._ids}-{next(self._number)}"
        timeout_us = max(1, int(self.timeout_s * 1_000_000))
        return Question(model, version, input_name, datatype, values, output_name, request_id, timeout_us, classes)

    def _asked(self, question: Question, read: Callable[[Question, Reply], Result]) -> Call[Request, Answer, Result]:
        request_id, url = question.request_id, self.url

        def answered(answer: Answer) -> Result:
            reply = self._reply(answer, question.model)
            if reply.request_id != request_id:
                raise mixed_up(url, reply.request_id)
            return read(question, reply)

        return Call(self._inference(question), lambda answer: _understood(lambda: answered(answer), url), question.model)

    @staticmethod
    def _values(question: Question, reply: Reply) -> InferResult:
        return InferResult(reply.result.as_numpy(question.output_name), reply.version)

    @abstractmethod
    def _metadata(self) -> Request:
        """Ask the server what it is."""

    @abstractmethod
    def _statistics(self, model: str = "", version: str = "") -> Request:
        """Ask what a version of a model has done, or all models."""

    @abstractmethod
    def _configuration(self, model: str, version: str) -> Request:
        """Ask for a model's configuration."""

    @abstractmethod
    def _inference(self, question: Question) -> Request:
        """Write a question."""

    @abstractmethod
    def _document(self, answer: Answer, model: str) -> object:
        """Return an answer's JSON."""

    @abstractmethod
    def _reply(self, answer: Answer, model: str) -> Reply:
        """Read the answer to a question."""


def _column(images: Sequence[bytes]) -> npt.NDArray[np.object_]:
    column = np.empty((len(images), 1), dtype=np.object_)
    column[:, 0] = list(images)
    return column


def _labels(question: Question, reply: Reply) -> dict[int, str]:
    # Each as `probability:index:label`, or without the last where there is no label.
    entries = [bytes(entry).decode().split(":", 2) for entry in reply.result.as_numpy(question.output_name).reshape(-1)]
    return {int(entry[1]): entry[2] if len(entry) == 3 else "" for entry in entries}


def _understood(read: Callable[[], Value], url: str) -> Value:
    """Return what `read` makes of an answer. Raises ServerError if the answer does not have Triton's form, however it fails to."""
    try:
        return read()
    except SightlineError:
        raise
    except (InferenceServerException, ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
        raise not_triton(url, error) from None
