"""Where commands print: tables of results on stdout, talk and progress on stderr."""

import sys

from rich.console import Console
from rich.table import Table

WIDE = 200
"""Columns when stdout is no terminal, so that a row read by a program is one line."""


def results() -> Console:
    """Stdout, for results."""
    return Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else WIDE)


def messages() -> Console:
    """Stderr, for everything else."""
    return Console(stderr=True, highlight=False, markup=False)


def table(*titles: str, left: int = 1) -> Table:
    """Make an empty table without lines; all columns but the first `left` hold numbers."""
    made = Table(*titles, box=None, pad_edge=False, header_style="bold")
    for column in made.columns[left:]:
        column.justify = "right"
    return made
