"""What is sent to a server and read from it: an image in a request, probabilities in the answer.

`raw` is the bytes of the image in the body and those of the probabilities in the answer, the best case of a server that leaves both to
its user. `v2` is the Open Inference Protocol with its binary extension, `v2-base64` the same without: JSON, the image in base64.
MLServer has no binary extension over HTTP, and KServe's makes a list of Python numbers of the bytes, 150,000 for an image of 224 × 224.
"""

import base64
import http.client
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from peers.models import Model, Pixels, Probabilities

Wire = Literal["raw", "v2", "v2-base64"]

BINARY_HEADER: Final = "Inference-Header-Content-Length"
MOST_ANSWER_BYTES: Final = 16 * 1024 * 1024

TITLES: Final[dict[Wire, str]] = {
    "raw": "bytes in the body",
    "v2": "V2, binary",
    "v2-base64": "V2, JSON with base64",
}


@dataclass(frozen=True)
class Request:
    """A POST, without the server's address."""

    path: str
    headers: dict[str, str]
    body: bytes


class WrongAnswerError(Exception):
    """A server answered something else than what was published; it says what."""


class NoAnswerError(WrongAnswerError):
    """It answered that it cannot answer, or in no HTTP."""


def request(wire: Wire, model: Model, image: Pixels) -> Request:
    """Ask about one image, uint8 [H, W, C]."""
    if wire == "raw":
        return Request("/predict", {"Content-Type": "application/octet-stream"}, image.tobytes())
    path = f"/v2/models/{model.kind.name}/infer"
    tensor: dict[str, object] = {"name": model.input, "datatype": "UINT8", "shape": [1, *image.shape]}
    if wire == "v2":
        tensor["parameters"] = {"binary_data_size": image.nbytes}
        head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
        headers = {"Content-Type": "application/octet-stream", BINARY_HEADER: str(len(head))}
        return Request(path, headers, head + image.tobytes())
    encoded = base64.b64encode(image.tobytes()).decode("ascii")
    tensor |= {"datatype": "BYTES", "shape": [1, 1], "parameters": {"content_type": "base64"}, "data": [encoded]}
    return Request(path, {"Content-Type": "application/json"}, json.dumps({"inputs": [tensor]}).encode())


def probabilities(wire: Wire, head_bytes: int | None, body: bytes) -> Probabilities:
    """Read an answer, float32 [classes]. `head_bytes` is the length of the JSON before binary data, None where the server names none.

    Raises WrongAnswerError if it is none.
    """
    try:
        if wire == "raw":
            return np.frombuffer(body, np.float32)
        if head_bytes is not None:
            return np.frombuffer(body[head_bytes:], np.float32)
        return np.asarray(json.loads(body)["outputs"][0]["data"], np.float32).reshape(-1)
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise WrongAnswerError(f"an answer that cannot be read: {body[:120]!r} ({type(error).__name__})") from error


class Line:
    """A connection that is kept to one server."""

    def __init__(self, port: int, timeout_s: float) -> None:
        self._http = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)

    def ask(self, wire: Wire, asked: Request) -> Probabilities:
        """Send a request and read its answer. Raises NoAnswerError if there is none, OSError if there is no server."""
        try:
            self._http.request("POST", asked.path, asked.body, asked.headers)
            answer = self._http.getresponse()
            body = answer.read(MOST_ANSWER_BYTES)
        except http.client.HTTPException as error:
            self._http.close()
            raise NoAnswerError(f"no HTTP answer: {type(error).__name__} {error}") from error
        except OSError:
            self._http.close()
            raise
        if answer.status != http.client.OK:
            raise NoAnswerError(f"HTTP status {answer.status}: {body[:200].decode('utf-8', 'replace')}")
        head = answer.headers.get(BINARY_HEADER)
        return probabilities(wire, int(head) if head is not None and head.isdigit() else None, body)

    def close(self) -> None:
        """End the connection."""
        self._http.close()


def demand(answer: Probabilities, expected: Probabilities, tolerance: float) -> None:
    """Raise WrongAnswerError if an answer is not the expected one within the tolerance; NaN never is."""
    if answer.shape != expected.shape:
        raise WrongAnswerError(f"{answer.size} probabilities where {expected.size} were published")
    off = float(np.abs(answer - expected).max())
    if not off <= tolerance:
        raise WrongAnswerError(f"|Δp| {off:.1e} to the published answer, more than {tolerance:.1e}")


def requests(wire: Wire, model: Model) -> Sequence[Request]:
    """Ask about each image of a model."""
    return [request(wire, model, image) for image in model.pixels]
