"""What was measured, one JSON line for each turn of a contender as soon as it is over: a run that was stopped goes on where it was."""

import statistics
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from sightline.host.files import write_atomically

MOST_BYTES: Final = 64 * 1024 * 1024
IN_PROCESS: Final = "in process"
"""The contender that is no server."""


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Window(_Value):
    """One window of load at one concurrency."""

    concurrency: int
    per_s: float
    p50_ms: float = 0.0
    p95_ms: float = 0.0
    p99_ms: float = 0.0
    cpu_ms: float = 0.0
    """CPU of all the server's processes for one request."""
    shape: str = ""
    """Of ONNX Runtime in process: the fastest one."""


class Turn(_Value):
    """One start of a contender with one model, from its start to its end; or why there is none."""

    kind: Literal["turn"] = "turn"
    model: str
    contender: str
    round: int
    window_s: float
    shape: str = ""
    startup_s: float = 0.0
    rest_mib: float = 0.0
    """PSS after the first answers."""
    loaded_mib: float = 0.0
    """PSS after the last window."""
    windows: tuple[Window, ...] = ()
    perf_analyzer: tuple[Window, ...] = ()
    perf_analyzer_failure: str = ""
    failure: str = ""
    """Why it was not measured; "" if it was."""
    wrong: bool = False
    """It answered wrongly and is out."""
    at: str = Field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))


class FileTurn(_Value):
    """One window of whole files, from the file to the answer."""

    kind: Literal["files"] = "files"
    photos: str
    way: str
    concurrency: int
    round: int
    window_s: float
    images_per_s: float = 0.0
    cpu_ms: float = 0.0
    """Of client and server together, for one image."""
    largest_difference: float = 0.0
    """|Δp| to the answer that the published preprocessing and model give."""
    failure: str = ""
    at: str = Field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))


Line = Annotated[Turn | FileTurn, Field(discriminator="kind")]
LINES: Final[TypeAdapter[Turn | FileTurn]] = TypeAdapter(Line)


def append(file: Path, turn: Turn | FileTurn) -> None:
    """Add a turn to the file; the torn last line of a killed run gives way."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("ab+") as lines:
        lines.seek(0)
        lines.truncate(lines.read().rfind(b"\n") + 1)
        lines.write(turn.model_dump_json().encode() + b"\n")


def read(file: Path) -> tuple[list[Turn], list[FileTurn]]:
    """Read every turn; the last line of a killed run may be torn and is left out. Raises ValueError if another line is no turn."""
    if not file.is_file():
        return [], []
    if file.stat().st_size > MOST_BYTES:
        raise ValueError(f"{file} has more than {MOST_BYTES // 1024 // 1024} MiB: it is none of ours")
    turns: list[Turn] = []
    files: list[FileTurn] = []
    for line in file.read_text(encoding="utf-8").split("\n")[:-1]:
        turn = LINES.validate_json(line)
        if isinstance(turn, Turn):
            turns.append(turn)
        else:
            files.append(turn)
    return turns, files


def forget_failures(file: Path) -> None:
    """Leave only what was measured in the file: what failed is tried again."""
    turns, files = read(file)
    kept: list[Turn | FileTurn] = [*(turn for turn in turns if not turn.failure), *(turn for turn in files if not turn.failure)]
    if len(kept) < len(turns) + len(files):
        write_atomically(file, "".join(turn.model_dump_json() + "\n" for turn in kept))


class Figure(_Value):
    """A figure of several rounds."""

    median: float
    lowest: float
    highest: float
    n: int

    @property
    def spread_percent(self) -> float:
        """How far the rounds lie from their median at most."""
        return 100 * max(self.highest - self.median, self.median - self.lowest) / self.median if self.median else 0.0


def figure(values: Iterable[float]) -> Figure | None:
    """Return the median and the range; None of nothing."""
    ordered = sorted(values)
    if not ordered:
        return None
    return Figure(median=statistics.median(ordered), lowest=ordered[0], highest=ordered[-1], n=len(ordered))


def rates(turns: Sequence[Turn], model: str, contender: str, concurrency: int) -> dict[int, float]:
    """Return round → requests/s of a contender that answered rightly."""
    return {
        turn.round: window.per_s
        for turn in turns
        if (turn.model, turn.contender) == (model, contender) and not turn.failure
        for window in turn.windows
        if window.concurrency == concurrency
    }


def ratio(ours: dict[int, float], theirs: dict[int, float]) -> Figure | None:
    """Return the ratio of two contenders, round by round: what the machine did in a round touches both."""
    return figure(ours[number] / theirs[number] for number in ours if theirs.get(number))


def best_of(*several: dict[int, float]) -> dict[int, float]:
    """Return round → the best rate of several contenders."""
    rounds = {number for each in several for number in each}
    return {number: max(each[number] for each in several if number in each) for number in sorted(rounds)}
