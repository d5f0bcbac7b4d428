"""Where commands print: results and documents on stdout; messages, progress bars and everything else on stderr.

rich is imported when something is laid out with it: `sightline classify` starts without it.
"""

import sys
from typing import TYPE_CHECKING, Final

from pydantic_core import to_json

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

WIDE: Final = 200
"""Columns when stdout is no terminal, so that a row read by a program is one line."""


def results() -> "Console":
    """Return the console on stdout, for results."""
    from rich.console import Console

    return Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else WIDE)


def messages() -> "Console":
    """Return the console on stderr, for messages and progress bars. It breaks no line: paths and addresses stay whole."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, markup=False, soft_wrap=True)


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
