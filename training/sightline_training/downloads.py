"""What bounds every download, whichever library makes it: how long the line may be silent."""

import contextlib
import socket
from collections.abc import Iterator
from typing import Final

FETCH_TIMEOUT_S: Final = 30.0
"""Of silence on the line, not of the whole download."""


@contextlib.contextmanager
def silence_limited_to(timeout_s: float) -> Iterator[None]:
    """Neither library sets a timeout on all its connections: torchvision's heed the socket's default, kagglehub's only requests' own."""
    import requests

    before, send = socket.getdefaulttimeout(), requests.Session.send

    def impatient(session: requests.Session, request: requests.PreparedRequest, **settings: object) -> requests.Response:
        if settings.get("timeout") is None:
            settings["timeout"] = timeout_s
        return send(session, request, **settings)

    socket.setdefaulttimeout(timeout_s)
    requests.Session.send = impatient  # type: ignore[assignment, method-assign]
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
        requests.Session.send = send  # type: ignore[method-assign]
