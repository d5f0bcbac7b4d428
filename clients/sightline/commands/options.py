"""The options that every command which talks to a server shares."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, Final

import click

from sightline.transport.address import Tls

DEFAULT_URL: Final = "grpc://localhost:8001"


@dataclass(frozen=True)
class Server:
    """Which server to ask, and how."""

    url: str
    timeout_s: float
    tls: Tls


def server_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add --url, --timeout, --ca, --cert and --key; the command receives them as one `server`."""

    @wraps(command)
    def with_server(url: str, timeout_s: float, ca: Path | None, cert: Path | None, key: Path | None, **others: Any) -> None:
        command(server=Server(url, timeout_s, Tls(ca, cert, key)), **others)

    pem = click.Path(path_type=Path, dir_okay=False)
    seconds = click.FloatRange(0, min_open=True)
    decorated: Callable[..., None] = with_server
    for option in (
        click.option("--key", type=pem, help="PEM file with the client's private key, for mutual TLS."),
        click.option("--cert", type=pem, help="PEM file with the client's certificate, for mutual TLS."),
        click.option("--ca", type=pem, help="PEM file with the authority that signed the server's certificate."),
        click.option("--timeout", "timeout_s", type=seconds, default=10.0, show_default=True, help="Seconds each call may take."),
        click.option(
            "--url",
            default=DEFAULT_URL,
            envvar="SIGHTLINE_URL",
            show_default=True,
            show_envvar=True,
            help="The server: grpc://, grpcs://, http:// or https://host:port.",
        ),
    ):
        decorated = option(decorated)
    return decorated


version_option = click.option(
    "--version", "version", default="", metavar="N", help="Version of the model; the server chooses if it is left out."
)
