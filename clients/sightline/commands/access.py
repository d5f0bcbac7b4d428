"""With what a command is let in: headers, a token that no list of processes shows, the check of a model; and how it tells of a wait."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import click

from sightline.errors import SightlineError, UsageError
from sightline.host.files import read_text, reason_of
from sightline.host.text import one_line
from sightline.transport.headers import MAX_VALUE_BYTES, demand_headers

TELL_AFTER_S: Final = 1.0
"""A shorter wait is told to nobody."""
TELL_EVERY_S: Final = 10.0


credential_options: Final = (
    click.option(
        "--header",
        "headers",
        multiple=True,
        metavar="NAME:VALUE",
        help="Send this header with every call; repeatable. Everyone on this machine can read it: a token goes into SIGHTLINE_TOKEN.",
    ),
    click.option(
        "--token-file",
        type=click.Path(path_type=Path, dir_okay=False),
        help="File with a token to send as `Authorization: Bearer`.  [default: the environment variable SIGHTLINE_TOKEN]",
    ),
    click.option("--allow-plain-token", is_flag=True, help="Send a token to another machine without TLS, readable on the way."),
)

check_option = click.option(
    "--check",
    is_flag=True,
    help="Refuse a model, with exit code 9, whose answer to its golden sample is not the published one.",
)


def on_stderr(sentence: str) -> None:
    """Tell a sentence to whoever started the command."""
    click.echo(sentence, err=True)


class Telling:
    """An `on_wait` that tells of a wait that lasts, and then again every TELL_EVERY_S seconds. It may be pickled with its classifier."""

    def __init__(self, tell: Callable[[str], None] = on_stderr) -> None:
        self._tell = tell
        self._told_s = -TELL_EVERY_S

    def __call__(self, error: SightlineError, waited_s: float) -> None:
        """Tell, if it is time to."""
        if waited_s < TELL_AFTER_S:
            self._told_s = -TELL_EVERY_S
        elif waited_s - self._told_s >= TELL_EVERY_S or waited_s < self._told_s:
            self._told_s = waited_s
            self._tell(f"waiting, for {waited_s:.0f} s now: {error}")


def parsed_headers(lines: Sequence[str]) -> dict[str, str]:
    """Return the headers of options `NAME:VALUE`. Raises UsageError, without the value, for one that is none or comes twice."""
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon:
            raise UsageError("a header is written as NAME:VALUE, with a colon")
        if name.strip().lower() in (known.lower() for known in headers):
            raise UsageError(f"the header {one_line(name, 80)} is given twice")
        headers[name.strip()] = value.strip(" \t")
    demand_headers(headers)
    return headers


def token_in(file: Path | None) -> str | None:
    """Return the token that a file holds; None without a file. Raises UsageError if it cannot be read or is empty."""
    if file is None:
        return None
    try:
        token = read_text(file, MAX_VALUE_BYTES).strip()
    except OSError as error:
        raise UsageError(f"{file}: the token cannot be read: {reason_of(error)}") from None
    if not token:
        raise UsageError(f"{file}: there is no token in this file")
    return token
