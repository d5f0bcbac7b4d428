"""Turns what Triton says of a failed call into the error tree; both protocols end here, so that both say the same sentence."""

from collections.abc import Callable
from typing import Final, TypeVar

from tritonclient.utils import InferenceServerException

from sightline.errors import DeadlineExceeded, ModelError, ModelNotFound, ServerError, ServerUnavailable, SightlineError, UsageError
from sightline.host.text import one_line

Value = TypeVar("Value")

_UNAVAILABLE: Final = ("StatusCode.UNAVAILABLE", "StatusCode.CANCELLED", "502", "503")
"""A Triton that is told to end cancels the gRPC calls in flight. (Nobody here cancels calls; after `close` the next one is refused.)"""
_BROKEN: Final = ("stream removed", "socket closed", "rst_stream", "goaway")
"""What gRPC says of a connection that ended under a call, whatever the status."""
_DEADLINE: Final = ("StatusCode.DEADLINE_EXCEEDED", "504", "499")
_NOT_FOUND: Final = ("StatusCode.NOT_FOUND", "404")
_NOT_READY: Final = ("no available versions", "not at ready state", "not ready", "is not healthy")
"""What Triton says of a model while it comes up or goes down; "Stub process … is not healthy" is a worker that died."""
_REFUSED: Final = ("StatusCode.INVALID_ARGUMENT", "400")


def from_triton(error: InferenceServerException, url: str, timeout_s: float, model: str = "") -> SightlineError:
    """Return the member of the error tree that says what happened to a call, of `model` if it was one of a model."""
    status, reason = error.status() or "", _words(error.message() or "")
    lower = reason.lower()
    if status in _DEADLINE:
        return deadline(url, timeout_s)
    if model and any(words in lower for words in _NOT_READY):
        return ServerUnavailable(f"the model {model} on {url} is not ready: {reason}. The server is coming up or going down")
    if model and ("unknown model" in lower or status in _NOT_FOUND or ("is not found" in lower and model.lower() in lower)):
        advice = f"`sightline models --url {url}` lists what it has"
        return ModelNotFound(f"the server at {url} has no such model or version: {reason} ({advice})")
    if status in _UNAVAILABLE or any(words in lower for words in _BROKEN):
        return unavailable(url, reason)
    if status in _REFUSED and model:
        return ModelError(f"the model {model} on {url} refused the request: {reason}")
    return ServerError(f"the server at {url} failed: {reason} ({status or 'no status'})")


def unavailable(url: str, reason: object) -> ServerUnavailable:
    """Report that nobody answers."""
    return ServerUnavailable(f"no Triton server answers at {url}: {_words(reason)}. Is it running? `sightline serve` starts one.")


def closed(url: str) -> UsageError:
    """Report a call after `close`."""
    return UsageError(f"the connection to {url} was closed by this program: open another one")


def deadline(url: str, timeout_s: float) -> DeadlineExceeded:
    """Report that no answer came in time."""
    return DeadlineExceeded(f"no answer from {url} within {timeout_s:g} s: the server is overloaded, or the time allowed is too short")


def mixed_up(url: str, request_id: str) -> ServerError:
    """Report an answer to another request than the one that was sent."""
    return ServerError(
        f"the answer of {url} is to another request ({_words(request_id) or 'it names none'}), and is not used: does something between "
        "here and the server mix up connections?"
    )


def understood(read: Callable[[], Value], url: str) -> Value:
    """Return what `read` makes of an answer. Raises ServerError if the answer does not have Triton's form, however it fails to."""
    try:
        return read()
    except SightlineError:
        raise
    except (InferenceServerException, ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
        raise not_triton(url, error) from None


def not_triton(url: str, error: Exception) -> ServerError:
    """Report an answer that does not have Triton's form."""
    return ServerError(f"the answer of {url} is not one that Triton gives ({_words(error)}): is something else listening there?")


def _words(reason: object) -> str:
    return one_line(reason, 400)
