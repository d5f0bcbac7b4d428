"""Options that several commands share, and the way in which a command receives many options as one value."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Final

import click

from sightline.errors import SightlineError
from sightline.image import MAX_PIXELS
from sightline.transport.address import Tls
from sightline.transport.patience import WAIT_S

DEFAULT_URL: Final = "grpc://localhost:8001"

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


def _server(url: str, timeout_s: float, wait_s: float, ca: Path | None, cert: Path | None, key: Path | None) -> Server:
    return Server(url, timeout_s, wait_s, Tls(ca, cert, key))


_PEM: Final = click.Path(path_type=Path, dir_okay=False)

server_options = options_as(
    "server",
    _server,
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
        default=10.0,
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
    click.option("--ca", type=_PEM, help="PEM file with the authority that signed the server's certificate."),
    click.option("--cert", type=_PEM, help="PEM file with the client's certificate, for mutual TLS."),
    click.option("--key", type=_PEM, help="PEM file with the client's private key, for mutual TLS."),
)
"""Adds --url, --timeout, --wait, --ca, --cert and --key; the command receives them as one `server`."""

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
