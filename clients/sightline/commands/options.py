"""Options that several commands share, and the way in which a command receives many options as one value."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Final, NotRequired, TypedDict, Unpack

import click

from sightline.classifier import DEFAULT_URL, Classifier
from sightline.client_settings import TIMEOUT_S, ClientOptions, ClientSettings, settings_of
from sightline.commands.access import Telling, check_option, credential_options, parsed_headers, token_in
from sightline.errors import SightlineError
from sightline.image import MAX_PIXELS
from sightline.transport.address import Tls
from sightline.transport.patience import WAIT_S

if TYPE_CHECKING:
    from sightline.transport import Transport

Command = Callable[..., None]


def options_as(argument: str, settings: Callable[..., object], *options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Add click options that a command receives as one `argument`: `settings`, called with each option's value by its name.

    @options_as("settings", BenchSettings, click.option("--batch", …), click.option("--window", "window_s", …))
    def bench(model: str, settings: BenchSettings) -> None: …
    """

    def decorate(command: Command) -> Command:
        names: list[str] = []

        @wraps(command)
        def bundled(**values: object) -> None:
            fields = {name: values.pop(name) for name in names}
            command(**values, **{argument: settings(**fields)})

        decorated: Command = bundled
        for option in reversed(options):
            decorated = option(decorated)
        # click collects parameters on the function, the newest last.
        names += [parameter.name for parameter in decorated.__click_params__[-len(options) :]]  # type: ignore[attr-defined]
        return decorated

    return decorate


@contextmanager
def options_named(options: Mapping[str, str]) -> Iterator[None]:
    """Add to an error's message the options with which the user changes the settings that it names: setting → option."""
    try:
        yield
    except SightlineError as error:
        named = [f"`{options[setting]}`" for setting in error.settings if setting in options]
        if named:
            error.args = (f"{error} (Options: {', '.join(named)})",)
        raise


@dataclass(frozen=True)
class Server:
    """Which server to ask, and how."""

    url: str
    timeout_s: float
    wait_s: float
    tls: Tls
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    token: str | None = field(default=None, repr=False)
    """None leaves it to the environment variable SIGHTLINE_TOKEN."""
    allow_plain_token: bool = False
    check: bool = False

    def at(self, url: str) -> "Server":
        """Return how to ask another address in the same way."""
        return replace(self, url=url)

    def settings(self) -> ClientSettings:
        """Return what the options settle, the token of the environment among it. Raises UsageError."""
        return settings_of(self.options())

    def headers_sent(self) -> Mapping[str, str]:
        """Return the headers that go to this server, the token among them. Raises UsageError for one that must not go there."""
        with options_named(OPTION_OF):
            return self.settings().headers_to(self.url)

    def options(self) -> ClientOptions:
        """Return the options of a `Classifier` that asks this server. Waiting is told on stderr."""
        chosen = ClientOptions(
            timeout_s=self.timeout_s,
            wait_s=self.wait_s,
            tls=self.tls,
            headers=self.headers,
            allow_plain_token=self.allow_plain_token,
            check=self.check,
            on_wait=Telling(),
        )
        if self.token is not None:
            chosen["token"] = self.token
        return chosen

    def opened(self, model: str, **more: Unpack[ClientOptions]) -> Classifier:
        """Open a model on this server, with `more` options. Raises as `Classifier` does, and names the options of the command line."""
        with options_named(OPTION_OF):
            chosen = self.options()
            chosen.update(more)
            return Classifier(model, self.url, **chosen)

    def connect(self) -> "Transport":
        """Open a transport to this server."""
        from sightline.transport import connect

        with options_named(OPTION_OF):
            settings = self.settings()
            return connect(self.url, settings.timeout_s, settings.tls, settings.headers_to(self.url))


OPTION_OF: Final = {"allow_plain_token": "--allow-plain-token"}
"""Setting of a client → the option that changes it."""


class _ServerValues(TypedDict):
    """What click gives."""

    url: NotRequired[str]
    timeout_s: NotRequired[float]
    wait_s: NotRequired[float]
    ca: NotRequired[Path | None]
    cert: NotRequired[Path | None]
    key: NotRequired[Path | None]
    headers: tuple[str, ...]
    token_file: Path | None
    allow_plain_token: bool
    check: NotRequired[bool]


def _server(**values: Unpack[_ServerValues]) -> Server:
    return Server(
        values.get("url", DEFAULT_URL),
        values.get("timeout_s", TIMEOUT_S),
        values.get("wait_s", WAIT_S),
        Tls(values.get("ca"), values.get("cert"), values.get("key")),
        parsed_headers(values["headers"]),
        token_in(values["token_file"]),
        values["allow_plain_token"],
        values.get("check", False),
    )


_PEM: Final = click.Path(path_type=Path, dir_okay=False)

_TLS: Final = (
    click.option("--ca", type=_PEM, help="PEM file with the authority that signed the server's certificate."),
    click.option("--cert", type=_PEM, help="PEM file with the client's certificate, for mutual TLS."),
    click.option("--key", type=_PEM, help="PEM file with the client's private key, for mutual TLS."),
)

_SERVER: Final = (
    click.option(
        "--url",
        default=DEFAULT_URL,
        envvar="SIGHTLINE_URL",
        show_default=True,
        show_envvar=True,
        help="The server: grpc://, grpcs://, http:// or https://host:port.",
    ),
    click.option(
        "--timeout",
        "timeout_s",
        type=click.FloatRange(0, min_open=True),
        default=TIMEOUT_S,
        show_default=True,
        help="Seconds each call may take.",
    ),
    click.option(
        "--wait",
        "wait_s",
        type=click.FloatRange(0),
        default=WAIT_S,
        show_default=True,
        help="Seconds to ask again while nobody answers, as of a server that starts anew.",
    ),
    *_TLS,
    *credential_options,
)

server_options = options_as("server", _server, *_SERVER)
"""Adds --url, --timeout, --wait, --ca, --cert, --key, --header, --token-file and --allow-plain-token; the command receives one `server`."""

access_options = options_as("access", _server, *_TLS, *credential_options, check_option)
"""All of `model_options` but --url, --timeout and --wait, for a command that names its servers otherwise: `access.at(url)`."""

model_options = options_as("server", _server, *_SERVER, check_option)
"""The same with --check, for commands that ask a model about images: `Classifier(model, server.url, **server.options())`."""

version_option = click.option(
    "--version", "version", default="", metavar="N", help="Version of the model; the server chooses if it is left out."
)

max_pixels_option = click.option(
    "--max-pixels",
    type=click.IntRange(1),
    default=MAX_PIXELS,
    show_default=True,
    metavar="N",
    help="The most pixels that an image may have: 200000000 for the largest photos of phones, which take 600 MB each.",
)
