"""The guard: ratios of one run, ours over ONNX Runtime in process and over FastAPI, held to those that were stored.

Seconds depend on the machine and on what else it does; a ratio of two figures that were measured by turns depends on them much less.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, Field

from peers.contenders import OURS
from peers.models import KINDS
from peers.report import FASTAPI
from peers.results import IN_PROCESS, Figure, Turn, best_of, rates, ratio
from sightline.host.files import write_atomically

FILE: Final = Path(__file__).parent.parent / "guard.json"
MODELS: Final = ("mnist", "asl", "fruit")
CONTENDERS: Final = (OURS, *FASTAPI)
MOST_DROP: Final = 0.15
OVER: Final = {IN_PROCESS: "ONNX Runtime in process", "fastapi": "FastAPI"}


class Stored(BaseModel):
    """benchmarks/guard.json: what the ratios were when they were stored."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    machine: str
    at: str
    rounds: int = Field(ge=1)
    window_s: float = Field(gt=0)
    ratios: dict[str, float]
    """`mnist, 8, over FastAPI` → the median of the rounds."""


@dataclass(frozen=True)
class Row:
    """One ratio beside its stored value."""

    name: str
    stored: float | None
    """None if it is a new one."""
    now: Figure | None
    """None if it was not measured."""

    @property
    def change(self) -> float | None:
        """Share by which it changed; None where one of both is missing."""
        return None if self.stored is None or self.now is None else self.now.median / self.stored - 1

    @property
    def failed(self) -> bool:
        """Whether it dropped by more than MOST_DROP, or a stored ratio was not measured."""
        return self.stored is not None and (self.now is None or self.now.median < self.stored * (1 - MOST_DROP))

    @property
    def verdict(self) -> str:
        """In a word or two."""
        if self.now is None:
            return "not measured"
        if self.stored is None:
            return "new"
        return f"dropped by more than {MOST_DROP:.0%}" if self.failed else "holds"


def names() -> list[str]:
    """Return the names of all ratios: `mnist, 8, over FastAPI`."""
    return [
        f"{model}, {concurrency}, over {other}" for model in MODELS for concurrency in KINDS[model].concurrencies for other in OVER.values()
    ]


def ratios(turns: Sequence[Turn]) -> dict[str, Figure]:
    """Return every ratio that the turns have."""
    measured = {}
    for model in MODELS:
        for concurrency in KINDS[model].concurrencies:
            ours = rates(turns, model, OURS, concurrency)
            others = {
                IN_PROCESS: rates(turns, model, IN_PROCESS, concurrency),
                "fastapi": best_of(*(rates(turns, model, name, concurrency) for name in FASTAPI)),
            }
            for other, theirs in others.items():
                value = ratio(ours, theirs)
                if value is not None:
                    measured[f"{model}, {concurrency}, over {OVER[other]}"] = value
    return measured


def compare(stored: Mapping[str, float], measured: Mapping[str, Figure]) -> list[Row]:
    """Return a row for each ratio that is stored or was measured."""
    return [Row(name, stored.get(name), measured.get(name)) for name in dict.fromkeys([*stored, *measured])]


def read_stored(file: Path = FILE) -> Stored:
    """Read what was stored. Raises FileNotFoundError if nothing was, pydantic's ValidationError if it holds something else."""
    return Stored.model_validate_json(file.read_text(encoding="utf-8"))


def store(stored: Stored, file: Path = FILE) -> None:
    """Write it, whole."""
    write_atomically(file, stored.model_dump_json(indent=1) + "\n")
