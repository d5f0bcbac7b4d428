"""Shows on stderr that long work moves: a bar on a terminal, nothing elsewhere."""

from collections.abc import Iterable, Sequence
from typing import TypeVar

from rich.progress import track

from sightline.console import messages

Item = TypeVar("Item")

BAR_FROM = 2000
"""Fewer items are done before a bar could be read."""


def tracked(items: Sequence[Item], description: str, bar_from: int = BAR_FROM) -> Iterable[Item]:
    """Iterate over `items`, with a progress bar when stderr is a terminal and there are at least `bar_from`."""
    console = messages()
    return track(items, description, console=console, transient=True, disable=not console.is_terminal or len(items) < bar_from)
