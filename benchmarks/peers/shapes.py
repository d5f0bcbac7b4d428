"""How a peer is set: processes, threads, batching; and which of the candidates was the fastest for a model on this machine.

`make bench-peers-tune` tries every candidate and keeps what it measured in shapes.json, the fastest first; the race reads it.
"""

from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, Field

from sightline.host.files import write_atomically

FILE: Final = Path(__file__).parent / "shapes.json"


class Shape(BaseModel):
    """What a server is told; each reads what it has a setting for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    workers: int = Field(default=1, ge=0, le=64)
    """Processes that compute; 0 computes where the server listens."""
    threads: int = Field(default=1, ge=1, le=256)
    """Of ONNX Runtime in one process."""
    pool: int = Field(default=0, ge=0, le=64)
    """Threads that compute requests side by side; 0 computes in the event loop."""
    max_batch: int = Field(default=1, ge=1, le=4096)
    """1 batches nothing."""
    batch_wait_ms: float = Field(default=0.0, ge=0, le=1000)
    proxy: bool = False
    """Ray Serve's HAProxy in place of its Python proxy."""

    def __str__(self) -> str:
        """Return the settings that are not what they would be by themselves."""
        words = [f"{self.workers} worker{'s' * (self.workers != 1)}", f"{self.threads} thread{'s' * (self.threads != 1)}"]
        if self.pool:
            words.append(f"pool {self.pool}")
        if self.max_batch > 1:
            words.append(f"batches to {self.max_batch}, {self.batch_wait_ms:g} ms")
        if self.proxy:
            words.append("HAProxy")
        return ", ".join(words)

    def environment(self) -> dict[str, str]:
        """Return the settings as servers/setup.py reads them."""
        return {
            "RACE_WORKERS": str(self.workers),
            "RACE_THREADS": str(self.threads),
            "RACE_POOL": str(self.pool),
            "RACE_MAX_BATCH": str(self.max_batch),
            "RACE_BATCH_WAIT_MS": str(self.batch_wait_ms),
        }


class Tried(BaseModel):
    """One candidate as it was measured."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    shape: Shape
    rates: dict[int, float]
    """Concurrency → requests/s."""


class Tuned(BaseModel):
    """Every candidate that was tried, by model and peer, the fastest first."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    machine: str = ""
    tried: dict[str, dict[str, tuple[Tried, ...]]] = {}

    def best(self, model: str, peer: str, candidates: tuple[Shape, ...]) -> Shape:
        """Return the fastest of `candidates`; the first of them where nothing was measured."""
        fast = (tried.shape for tried in self.tried.get(model, {}).get(peer, ()))
        return next((shape for shape in fast if shape in candidates), candidates[0])

    def with_tried(self, model: str, peer: str, tried: tuple[Tried, ...]) -> "Tuned":
        """Return these with what was measured of a peer, in the order of their speed."""
        ordered = tuple(sorted(tried, key=speed, reverse=True))
        return self.model_copy(update={"tried": {**self.tried, model: {**self.tried.get(model, {}), peer: ordered}}})


def speed(tried: Tried) -> float:
    """The geometric mean of the rates: no concurrency counts more than another."""
    product = 1.0
    for rate in tried.rates.values():
        product *= rate
    return float(product ** (1 / max(1, len(tried.rates))))


def read_tuned(file: Path = FILE) -> Tuned:
    """Read what was tried; nothing if the file is not there. Raises pydantic's ValidationError if it holds something else."""
    return Tuned.model_validate_json(file.read_text(encoding="utf-8")) if file.is_file() else Tuned()


def write_tuned(tuned: Tuned, file: Path = FILE) -> None:
    """Write what was tried, whole."""
    write_atomically(file, tuned.model_dump_json(indent=1, exclude_defaults=True) + "\n")
