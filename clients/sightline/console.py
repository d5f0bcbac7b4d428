"""Where commands print: results and documents on stdout; messages, progress bars and everything else on stderr.

rich is imported when something is laid out with it: `sightline classify` starts without it.
"""

import sys
from typing import IO, TYPE_CHECKING, Final, TextIO, cast

from pydantic_core import to_json

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

WIDE: Final = 200
"""Columns when stdout is no terminal, so that a row read by a program is one line."""


def results() -> "Console":
    """Return the console on stdout, for results."""
    from rich.console import Console

    if sys.stdout.isatty():
        return Console(highlight=False, markup=False, emoji=False)
    return Console(file=_trimmed(sys.stdout), highlight=False, markup=False, emoji=False, width=WIDE)


def messages() -> "Console":
    """Return the console on stderr, for messages and progress bars. It breaks no line: paths and addresses stay whole."""
    from rich.console import Console

    if sys.stderr.isatty():
        return Console(stderr=True, highlight=False, markup=False, emoji=False, soft_wrap=True)
    return Console(file=_trimmed(sys.stderr), highlight=False, markup=False, emoji=False, soft_wrap=True)


class _Trimmed:
    """A text file whose lines end with their last letter: rich fills the rows of a table up, to the last of 200 columns."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._line = ""

    def write(self, text: str) -> int:
        *lines, self._line = (self._line + text).split("\n")
        self._file.writelines(f"{line.rstrip(' ')}\n" for line in lines)
        return len(text)

    def flush(self) -> None:
        self._file.write(self._line)
        self._line = ""
        self._file.flush()

    def __getattr__(self, name: str) -> object:
        return getattr(self._file, name)


def _trimmed(file: TextIO) -> IO[str]:
    return cast("IO[str]", _Trimmed(file))


def table(*titles: str, left: int = 1) -> "Table":
    """Return an empty table without lines; all columns but the first `left` hold numbers."""
    from rich.table import Table

    empty = Table(*titles, box=None, pad_edge=False, header_style="bold")
    for column in empty.columns[left:]:
        column.justify = "right"
    return empty


def print_document(document: object) -> None:
    """Print a dataclass or a pydantic model on stdout, for scripts: one JSON object on one line."""
    print(to_json(document).decode(), flush=True)
