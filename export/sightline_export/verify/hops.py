"""The hops of a model's line, from the trainer to every client, as values: what was compared, and whether it is the same."""

from enum import StrEnum
from typing import Final

import numpy as np
from pydantic import BaseModel, ConfigDict

from sightline.errors import HopDiffers


class HopKind(StrEnum):
    """What two ends of a hop are compared by."""

    CARD = "card"
    WEIGHTS = "weights"
    FILE = "file"
    PIXELS = "pixels"
    ANSWERS = "answers"
    LABELS = "labels"


class HopVerdict(StrEnum):
    """What a comparison came to."""

    SAME = "same"
    DIFFERS = "differs"
    NOT_REACHED = "not_reached"


class Document(BaseModel):
    """A part of what `sightline verify --json` prints. It cannot be changed."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Hop(Document):
    """One hop: the same thing at two ends."""

    kind: HopKind
    source: str
    """The end nearer to the trainer: `run`, `training`, `torch`, `ONNX`, `published`."""
    target: str | None
    """The other end: `card.json`, `gRPC`, `HTTP, encoded` …; null where the source itself cannot be believed."""
    images: int | None
    """How many were compared; null for a hop that compares no images."""
    agreeing: int
    """Images with the same most probable class at both ends; for pixels, those with every byte the same."""
    max_delta: float
    """Largest |Δp| over all images and classes; for pixels, the largest difference of a byte. NaN is null in JSON."""
    verdict: HopVerdict
    reason: str
    """What differs first; empty if nothing does."""

    @property
    def route(self) -> str:
        """Both ends, for people: `torch → ONNX`."""
        return self.source if self.target is None else f"{self.source} → {self.target}"

    def __str__(self) -> str:
        """For people: `answers: torch → ONNX`."""
        return f"{self.kind}: {self.route}"


class Proof(Document):
    """All hops of a model, in the order of the line."""

    model: str
    version: int
    hops: tuple[Hop, ...]

    def check(self) -> None:
        """Raise HopDiffers, naming the first broken hop, unless the answers are the same at every hop."""
        for verdict, sentence in SENTENCES.items():
            for hop in self.hops:
                if hop.verdict is verdict:
                    reason = hop.reason or "see the hops before it"
                    raise HopDiffers(f"{self.model} version {self.version}: {sentence.format(hop)}: {reason}")


SENTENCES: Final = {
    HopVerdict.DIFFERS: "the answers part at the hop “{}”",
    HopVerdict.NOT_REACHED: "the hop “{}” could not be reached",
}
"""Verdict → the phrase that names the first hop with it, those that matter most first."""


class Tally:
    """Counts one hop while its images are compared."""

    def __init__(self, kind: HopKind, source: str, target: str | None = None, *, counts_images: bool = False) -> None:
        self.kind, self.source, self.target = kind, source, target
        self.images = 0 if counts_images else None
        self.agreeing, self.max_delta = 0, 0.0
        self.verdict, self.reason = HopVerdict.NOT_REACHED, ""

    def count(self, images: int, agreeing: int, max_delta: float) -> None:
        """Add a chunk of compared images."""
        self.images = (self.images or 0) + images
        self.agreeing += agreeing
        self.max_delta = float(np.maximum(self.max_delta, max_delta))  # NaN stays

    def same(self) -> None:
        """Note that what was compared agrees; an earlier difference stays."""
        if self.verdict is HopVerdict.NOT_REACHED:
            self.verdict = HopVerdict.SAME

    def differs(self, reason: str) -> None:
        """Note the first difference; later ones change nothing."""
        if self.verdict is not HopVerdict.DIFFERS:
            self.verdict, self.reason = HopVerdict.DIFFERS, reason

    def hop(self) -> Hop:
        """Return the hop as it was counted."""
        return Hop(
            kind=self.kind,
            source=self.source,
            target=self.target,
            images=self.images,
            agreeing=self.agreeing,
            max_delta=self.max_delta,
            verdict=self.verdict,
            reason=self.reason,
        )
