"""Turns what Triton says of a failed call into the error tree; both protocols end here, so that both say the same sentence."""

from typing import Final

from sightline.errors import DeadlineExceeded, ModelError, ModelNotFound, ServerError, ServerUnavailable, SightlineError, UsageError
from sightline.host.text import one_line

_UNAVAILABLE: Final = ("StatusCode.UNAVAILABLE", "StatusCode.CANCELLED", "502", "503")
"""A Triton that is told to end cancels the gRPC calls in flight. (Nobody here cancels calls; after `close` the next one is refused.)"""
_BROKEN: Final = ("stream removed", "socket closed", "rst_stream", "goaway")
"""What gRPC says of a connection that ended under a call, whatever the status."""
_DEADLINE: Final = ("StatusCode.DEADLINE_EXCEEDED", "504", "499")
_NOT_FOUND: Final = ("StatusCode.NOT_FOUND", "404")
_NOT_READY: Final = ("no available versions", "not at ready state", "not ready", "is not healthy")
"""What Triton says of a model while it comes up or goes down; "Stub process … is not healthy" is a worker that died."""
_UNKNOWN: Final = ("unknown model", "model version is not available")
_NOT_ALLOWED: Final = ("StatusCode.UNAUTHENTICATED", "StatusCode.PERMISSION_DENIED", "401", "403")
_RESTRICTED: Final = "is restricted, expecting header"
"""What Triton says where an interface is restricted, over gRPC as if it were not there (UNAVAILABLE)."""
_REFUSED: Final = ("StatusCode.INVALID_ARGUMENT", "400")


def from_triton(status: str, words: object, url: str, timeout_s: float, model: str = "") -> SightlineError:
    """Return the member of the error tree that says what happened to a call, of `model` if it was one of a model.

    `status` is HTTP's or gRPC's ("404", "StatusCode.NOT_FOUND"), `words` are what came with it.
    """
    reason = _words(words or "")
    if status in _DEADLINE:
        return deadline(url, timeout_s)
    if status in _NOT_ALLOWED or _RESTRICTED in reason:
        advice = "Is a token (SIGHTLINE_TOKEN) or a header missing, or wrong?"
        return ServerError(f"the server at {url} does not let this caller in: {reason} ({status}). {advice}")
    if model and (of_model := _about_model(status, reason, url, model)):
        return of_model
    if status in _UNAVAILABLE or any(words in reason.lower() for words in _BROKEN):
        return unavailable(url, reason)
    return ServerError(f"the server at {url} failed: {reason} ({status or 'no status'})")


def _about_model(status: str, reason: str, url: str, model: str) -> SightlineError | None:
    """Return the failure of a call that is about a model, if it is the model's."""
    lower = reason.lower()
    if any(words in lower for words in _NOT_READY):
        return ServerUnavailable(f"the model {model} on {url} is not ready: {reason}. The server is coming up or going down")
    if any(words in lower for words in _UNKNOWN) or status in _NOT_FOUND or ("is not found" in lower and model.lower() in lower):
        advice = f"`sightline models --url {url}` lists what it has"
        return ModelNotFound(f"the server at {url} has no such model or version: {reason} ({advice})")
    if status in _REFUSED:
        return ModelError(f"the model {model} on {url} refused the request: {reason}")
    return None


def unavailable(url: str, reason: object) -> ServerUnavailable:
    """Report that nobody answers."""
    return ServerUnavailable(f"no Triton server answers at {url}: {_words(reason)}. Is it running? `sightline serve` starts one.")


def closed(url: str) -> UsageError:
    """Report a call after `close`."""
    return UsageError(f"the connection to {url} was closed by this program: open another one")


def tls_refused(error: OSError) -> UsageError:
    """Report a certificate or key that cannot be read or used."""
    return UsageError(f"a TLS file cannot be read: {error}")


def deadline(url: str, timeout_s: float) -> DeadlineExceeded:
    """Report that no answer came in time."""
    return DeadlineExceeded(f"no answer from {url} within {timeout_s:g} s: the server is overloaded, or the time allowed is too short")


def mixed_up(url: str, request_id: str) -> ServerError:
    """Report an answer to another request than the one that was sent."""
    return ServerError(
        f"the answer of {url} is to another request ({_words(request_id) or 'it names none'}), and is not used: does something between "
        "here and the server mix up connections?"
    )


def not_triton(url: str, error: Exception) -> ServerError:
    """Report an answer that does not have Triton's form."""
    return ServerError(f"the answer of {url} is not one that Triton gives ({_words(error)}): is something else listening there?")


def _words(reason: object) -> str:
    return one_line(reason, 400)
