"""How long work shows that it moves: a bar on a terminal, quiet or one line an epoch elsewhere; always on stderr."""

from collections.abc import Iterable, Sequence
from typing import TypeVar

from rich.console import Console
from rich.progress import track

Item = TypeVar("Item")

BAR_FROM = 2000
"""Fewer items are done before a bar could be read."""


def talk() -> Console:
    """The console for everything that is not a result: stderr, no markup, so that a path in brackets stays as it is."""
    return Console(stderr=True, highlight=False, markup=False, soft_wrap=True)


def tracked(items: Sequence[Item], what: str, bar_from: int = BAR_FROM) -> Iterable[Item]:
    """`items`, with a progress bar when stderr is a terminal and there are at least `bar_from`."""
    console = talk()
    return track(items, what, console=console, transient=True, disable=not console.is_terminal or len(items) < bar_from)
