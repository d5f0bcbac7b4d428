"""Headers that a caller adds to every call, checked before they are sent: one that holds a line break would be two, or another request.

Over gRPC they are the call's metadata.
"""

import re
from collections.abc import Iterable, Mapping
from ipaddress import ip_address
from typing import Final

from sightline.errors import UsageError
from sightline.host.text import one_line
from sightline.transport.address import Address

NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
"""What both protocols take (gRPC's metadata keys; a subset of HTTP's tokens)."""
VALUE: Final = re.compile(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?")
MOST: Final = 64
MAX_VALUE_BYTES: Final = 16 * 1024

RESERVED: Final = frozenset(
    {
        *("host", "content-length", "content-type", "content-encoding", "transfer-encoding", "accept-encoding", "expect"),
        *("connection", "keep-alive", "proxy-connection", "te", "trailer", "upgrade", "http2-settings", "inference-header-content-length"),
    }
)
"""What frames a request or belongs to a single connection (RFC 9110, 7.6.1), and is the transport's own."""

SECRET: Final = frozenset({"authorization", "cookie"})
"""What lets whoever reads it act for the caller."""

AUTHORIZATION: Final = "authorization"

SECRET_LETTERS: Final = 8
"""A shorter part of a header's value, such as Bearer, is no secret."""


def demand_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers with their names in lower case. Raises UsageError, without a header's value, for one that cannot be sent."""
    if len(headers) > MOST:
        raise UsageError(f"{len(headers)} headers are more than the {MOST} that a call may carry")
    checked: dict[str, str] = {}
    for name, value in headers.items():
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise UsageError(
                f"{one_line(repr(name), 80)} is no name of a header: it must be of letters, digits, and the signs - _ . between them"
            )
        lower = name.lower()
        if lower in RESERVED or lower.startswith("grpc-"):
            raise UsageError(f"the header {name} belongs to the connection, and no caller may set it")
        if lower.endswith("-bin"):
            raise UsageError(f"the header {name} would hold bytes over gRPC, by its ending -bin: give it another name")
        if lower in checked:
            raise UsageError(f"the header {name} is given twice")
        if not isinstance(value, str) or len(value) > MAX_VALUE_BYTES or not VALUE.fullmatch(value):
            raise UsageError(
                f"the value of the header {name} cannot be sent: it must be of 1 to {MAX_VALUE_BYTES:,} letters of ASCII, without line "
                "breaks and without spaces at its ends"
            )
        checked[lower] = value
    return checked


def with_token(headers: Mapping[str, str], token: str) -> dict[str, str]:
    """Return checked headers with `Authorization: Bearer <token>`, or as they are if there is no token. Raises UsageError."""
    checked = demand_headers(headers)
    if not token:
        return checked
    if AUTHORIZATION in checked:
        raise UsageError("a token and a header Authorization are two answers to one question: leave one of them out")
    if not VALUE.fullmatch(token) or " " in token or len(token) > MAX_VALUE_BYTES - len("Bearer "):
        raise UsageError("the token cannot be sent: it must be of ASCII letters without spaces or line breaks")
    return {**checked, AUTHORIZATION: f"Bearer {token}"}


def demand_secrecy(address: Address, headers: Mapping[str, str]) -> None:
    """Raise UsageError if a header that must stay secret would travel readable to another machine."""
    if not address.secure and not is_loopback(address.host) and (named := sorted(SECRET & set(headers))):
        scheme = "grpcs" if address.protocol == "grpc" else "https"
        raise UsageError(
            f"the header {named[0]} would travel to {address.host} readable for everybody on the way: use {scheme}://, or allow it",
            settings=("allow_plain_token",),
        )


def without_values(text: str, values: Iterable[str]) -> str:
    """Return a stranger's text without the values of headers, nor the words in them, should it repeat what it was sent."""
    for value in values:
        for part in (value, *(word for word in value.split() if len(word) >= SECRET_LETTERS)):
            text = text.replace(part, "…")
    return text


def is_loopback(host: str) -> bool:
    """Return whether a host's name or address is this very machine, without asking anybody."""
    name = host.strip("[]").rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False
