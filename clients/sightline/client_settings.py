"""What a caller may choose of a client, blocking or not: named options that become one frozen value, validated at once."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Final, TypedDict

from sightline.errors import UsageError
from sightline.image import MAX_PIXELS
from sightline.transport import AsyncTransport, Tls, Transport, parse_url
from sightline.transport.headers import demand_secrecy, with_token
from sightline.transport.patience import WAIT_S, OnWait, demand_wait

TIMEOUT_S: Final = 10.0
TOKEN_VARIABLE: Final = "SIGHTLINE_TOKEN"  # noqa: S105 - the name of a variable
"""The environment variable with the token of callers who give none."""


class SharedOptions(TypedDict, total=False):
    """Options of both clients; `ClientSettings` says what each means, and what holds without it."""

    version: str
    timeout_s: float
    wait_s: float
    on_wait: OnWait | None
    tls: Tls | None
    headers: Mapping[str, str]
    token: str
    allow_plain_token: bool
    max_pixels: int
    check: bool


class ClientOptions(SharedOptions, total=False):
    """Options of `Classifier`."""

    transport: Transport | None
    """What to ask through, in place of a connection to `url`: `sightline.testing` has one for tests. Headers and TLS are its own."""


class AsyncClientOptions(SharedOptions, total=False):
    """Options of `AsyncClassifier`."""

    transport: AsyncTransport | None
    """As that of `Classifier`, to be awaited."""


@dataclass(frozen=True, kw_only=True)
class ClientSettings:
    """How a client asks. Raises UsageError if a value makes no sense."""

    version: str = ""
    """Of the model; "" lets the server choose: the newest that it has loaded."""
    timeout_s: float = TIMEOUT_S
    """Of each call."""
    wait_s: float = WAIT_S
    """Where nobody answers, or the model is not ready, each call is repeated for so long; 30 outlasts a server that starts anew."""
    on_wait: OnWait | None = None
    """Called with the error and the seconds waited so far, each time before a call is repeated; by whichever thread or task waits."""
    tls: Tls | None = None
    """PEM files, for `grpcs://` and `https://`."""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Sent with every call; over gRPC as its metadata."""
    token: str | None = field(default=None, repr=False)
    """Sent with every call as `Authorization: Bearer <token>`. None takes that of the environment variable SIGHTLINE_TOKEN, if there is
    one; "" sends none."""
    allow_plain_token: bool = False
    """Whether a token may travel to another machine without TLS, readable for everybody on the way."""
    max_pixels: int = MAX_PIXELS
    """An image of more is refused; one of 200 million takes 600 MB while it is decoded."""
    check: bool = False
    """Whether the model must give the published answer to its golden sample before it is asked about an image."""

    def __post_init__(self) -> None:
        """Validate, and take the token from the environment."""
        if self.version and not (self.version.isascii() and self.version.isdigit() and len(self.version) < 20):
            raise UsageError(f"a model's version is a whole number, not {self.version!r}")
        if not self.timeout_s > 0:
            raise UsageError(f"the time allowed for a call must be more than 0 s, not {self.timeout_s:g}")
        demand_wait(self.wait_s)
        if self.max_pixels < 1:
            raise UsageError(f"the most pixels that an image may have must be at least 1, not {self.max_pixels}")
        token = os.environ.get(TOKEN_VARIABLE, "").strip() if self.token is None else self.token
        object.__setattr__(self, "token", token)
        object.__setattr__(self, "headers", with_token(self.headers, token))

    def elsewhere(self) -> "ClientSettings":
        """Return these settings for a client in another process, with the token that was found here and nobody to tell of waits."""
        return replace(self, token="", on_wait=None)  # the token is one of the headers by now

    def headers_to(self, url: str) -> Mapping[str, str]:
        """Return the headers for a server, the token among them. Raises UsageError if it would travel readable and nobody allowed it."""
        if not self.allow_plain_token:
            demand_secrecy(parse_url(url), self.headers)
        return self.headers


_NAMES: Final = tuple(setting.name for setting in fields(ClientSettings))


def settings_of(options: Mapping[str, object]) -> ClientSettings:
    """Return the settings that options other than `transport` name. Raises UsageError for one that there is not."""
    chosen = {name: value for name, value in options.items() if name != "transport"}
    unknown = sorted(set(chosen) - set(_NAMES))
    if unknown:
        raise UsageError(f"a client has no option {unknown[0]}: it has {', '.join(_NAMES)} and transport")
    if options.get("transport") is not None and (given := [name for name in ("headers", "token", "tls") if chosen.get(name)]):
        raise UsageError(f"{given[0]} cannot be given together with a transport, which has its own")
    return ClientSettings(**chosen)  # type: ignore[arg-type]  # their types are those of the options
