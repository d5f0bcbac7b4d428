"""Shows on stderr how far a command is that goes over many images: a bar on a terminal, elsewhere a plain line every ten seconds."""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Self

from sightline.errors import SightlineError
from sightline.host.text import one_line
from sightline.scoring.entries import Listing
from sightline.scoring.settings import ScoreProgress

if TYPE_CHECKING:
    from rich.console import Console

LINE_S: Final = 10.0
"""Between two lines where stderr is no terminal."""
REDRAW_S: Final = 0.5
COUNT_AFTER_S: Final = 2.0
"""A job that is done by then needs nobody to say how much is left."""
STALLED_S: Final = 5.0
"""After so long without an answer it is said that the server is waited for."""


class Display:
    """The progress of one job, in a `with` block. The images are counted meanwhile; until that is done, nobody says how many are left."""

    def __init__(self, images: Listing, console: "Console", what: str = "rows") -> None:
        self._images, self._console, self._what = images, console, what
        self._stop = threading.Event()
        self._counting = threading.Thread(target=self._count, name="count", daemon=True)
        self._showing = threading.Thread(target=self._show, name="show", daemon=True)
        self._total: int | None = None
        self._rows = self._resumed = 0
        self._started_s = self._advanced_s = time.monotonic()
        self._away = ""

    def progress(self, progress: ScoreProgress) -> None:
        """Take in what a job says after each batch."""
        self._rows, self._resumed = progress.rows, progress.resumed_rows
        self._advanced_s = time.monotonic()
        self._away = ""

    def waiting(self, error: Exception, waited_s: float) -> None:
        """Take in that the server does not answer, and why."""
        self._away = f"the server is away since {waited_s:.0f} s: {one_line(error, 120)}"

    def __enter__(self) -> Self:
        self._counting.start()
        self._showing.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._showing.join()

    def line(self) -> str:
        """Return where the job is, in words: `1,200 of 50,000 rows, 312 a second, 2 min 36 s left`."""
        of = "" if self._total is None else f" of {self._total:,}"
        text = f"{self._rows:,}{of} {self._what}"
        if rate := self._rate():
            text += f", {rate:,.0f} a second" if rate >= 10 else f", {rate:.1f} a second"
            if self._total is not None:
                text += f", {_duration(max(0, self._total - self._rows) / rate)} left"
        return f"{text}; {self._stalled()}" if self._stalled() else text

    def _rate(self) -> float:
        """Rows a second of this run."""
        elapsed_s = self._advanced_s - self._started_s
        return (self._rows - self._resumed) / elapsed_s if elapsed_s > 0 else 0.0

    def _stalled(self) -> str:
        silent_s = time.monotonic() - self._advanced_s
        return self._away or (f"waiting: no answer for {silent_s:.0f} s" if silent_s >= STALLED_S else "")

    def _count(self) -> None:
        if self._stop.wait(COUNT_AFTER_S):
            return
        # What cannot be listed is told by the job itself.
        with suppress(SightlineError, OSError):
            self._total = self._images.count(self._stop)

    def _show(self) -> None:
        if not self._console.is_terminal:
            self._every(LINE_S, lambda: self._console.print(self.line()))
            return
        from rich.progress import BarColumn, Progress, TextColumn

        with Progress(BarColumn(), TextColumn("{task.description}"), console=self._console, transient=True) as bar:
            task = bar.add_task("", total=None)
            self._every(REDRAW_S, lambda: bar.update(task, total=self._total, completed=self._rows, description=self.line()))

    def _every(self, pause_s: float, show: Callable[[], None]) -> None:
        while not self._stop.wait(pause_s):
            show()


def _duration(seconds: float) -> str:
    minutes, rest_s = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest_s} s" if minutes else f"{rest_s} s"
