"""Turns what Triton says of a failed call into the error tree; both protocols end here, so that both say the same sentence."""

from collections.abc import Callable
from typing import Final, TypeVar

from tritonclient.utils import InferenceServerException

from sightline.errors import DeadlineExceeded, ModelError, ModelNotFound, ServerError, ServerUnavailable, SightlineError, UsageError

Value = TypeVar("Value")

_UNAVAILABLE: Final = ("StatusCode.UNAVAILABLE", "502", "503")
_DEADLINE: Final = ("StatusCode.DEADLINE_EXCEEDED", "504", "499")
_NOT_FOUND: Final = ("StatusCode.NOT_FOUND", "404")
_REFUSED: Final = ("StatusCode.INVALID_ARGUMENT", "400")


def from_triton(error: InferenceServerException, url: str, timeout_s: float, model: str = "") -> SightlineError:
    """Give the member of the error tree that says what happened."""
    status, said = error.status() or "", _one_line(error.message() or "")
    lower = said.lower()
    if status in _DEADLINE:
        return deadline(url, timeout_s)
    if model and ("unknown model" in lower or status in _NOT_FOUND or ("is not found" in lower and model.lower() in lower)):
        if "not at ready state" in lower or "not ready" in lower:
            return ModelError(f"the model {model} on {url} is not ready: {said}")
        return ModelNotFound(f"the server at {url} has no such model or version: {said} (`sightline models --url {url}` lists what it has)")
    if status in _UNAVAILABLE:
        return unavailable(url, said)
    if status in _REFUSED and model:
        return ModelError(f"the model {model} on {url} refused the request: {said}")
    return ServerError(f"the server at {url} failed: {said} ({status or 'no status'})")


def unavailable(url: str, reason: object) -> ServerUnavailable:
    """Nobody answers."""
    return ServerUnavailable(f"no Triton server answers at {url}: {_one_line(str(reason))}. Is it running? `sightline serve` starts one.")


def closed(url: str) -> UsageError:
    """Report a call after `close`."""
    return UsageError(f"the connection to {url} was closed by this program: open another one")


def deadline(url: str, timeout_s: float) -> DeadlineExceeded:
    """Too late."""
    return DeadlineExceeded(f"no answer from {url} within {timeout_s:g} s: the server is overloaded or the time too short (--timeout)")


def understood(read: Callable[[], Value], url: str) -> Value:
    """Read an answer. One that does not have Triton's form, however it fails to, raises ServerError."""
    try:
        return read()
    except SightlineError:
        raise
    except (InferenceServerException, ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
        raise ServerError(
            f"the answer of {url} is not one that Triton gives ({_one_line(str(error))}): is something else listening there?"
        ) from None


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 400 else f"{line[:400]}…"
