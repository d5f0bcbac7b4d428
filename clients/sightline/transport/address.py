"""Reads a server's address, so that a mistyped one is a sentence and not a hanging connection."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal
from urllib.parse import urlsplit

from sightline.errors import UsageError

DEFAULT_PORTS: Final = {"grpc": 8001, "http": 8000, "grpcs": 443, "https": 443}
"""Triton's own for plain connections, the web's for TLS."""


@dataclass(frozen=True)
class Address:
    """Where a server listens."""

    url: str
    protocol: Literal["grpc", "http"]
    secure: bool
    host: str
    """With brackets if it is an IPv6 address."""
    port: int
    path: str
    """Without slashes around it; "" for gRPC, which has none."""


@dataclass(frozen=True)
class Tls:
    """PEM files for `grpcs://` and `https://`; without them the system's authorities decide and no client certificate is shown."""

    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None


def parse_url(url: str) -> Address:
    """Parse an address. Raises UsageError that says what an address looks like."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise UsageError(f"{url!r} is no server address: {error}") from None
    if parts.scheme not in DEFAULT_PORTS or not parts.hostname or any(letter.isspace() for letter in url):
        raise UsageError(f"{url!r} is no server address: write grpc://host:8001 or http://host:8000 (grpcs:// and https:// with TLS)")
    if parts.username is not None or parts.password is not None:
        raise UsageError(f"the address of {parts.hostname} holds a user name or password, which Triton has no use for: leave it out")
    if parts.query or parts.fragment:
        raise UsageError(f"{url!r} holds a query or a fragment, which a server address cannot have")
    try:
        parts.hostname.encode("idna")
    except UnicodeError:
        raise UsageError(f"{url!r} is no server address: {parts.hostname!r} cannot be the name of a host") from None
    grpc = parts.scheme.startswith("grpc")
    path = parts.path.strip("/")
    if grpc and path:
        raise UsageError(f"{url!r} has a path, which gRPC addresses cannot have: write {parts.scheme}://{parts.netloc}")
    return Address(
        url=url,
        protocol="grpc" if grpc else "http",
        secure=parts.scheme.endswith("s"),
        host=f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname,
        port=DEFAULT_PORTS[parts.scheme] if port is None else port,
        path=path,
    )
