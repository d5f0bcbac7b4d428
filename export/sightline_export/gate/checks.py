"""The gate's findings: every check with what was measured and what is allowed, and the sentence that refuses a model."""

import math
import re
from dataclasses import dataclass
from typing import Final, Literal

from sightline.errors import GateRefused
from sightline_export.gate.thresholds import Thresholds

Measured = float | str

ACCURACY: Final = "accuracy"
AGREEMENT: Final = "top-1 agreement"
MAX_DELTA_P: Final = "max |Δp|"
MEAN_DELTA_P: Final = "mean |Δp|"
NOT_FINITE: Final = "pictures with NaN or infinity"
"""Names of checks. They stand in published reports, so that they never change, the word for an image in them included."""


@dataclass(frozen=True)
class Check:
    """One property of a model: its measured value, and the values that are allowed."""

    name: str
    measured: Measured
    relation: Literal["at most", "at least", "exactly", "for the record"]
    threshold: Measured
    passed: bool

    def __str__(self) -> str:
        """For people: `max |Δp| is 0.0312 (allowed: at most 0.0001)`."""
        if self.relation == "for the record":
            return f"{self.name} is {_text(self.measured)}"
        allowed = _text(self.threshold) if self.relation == "exactly" else f"{self.relation} {_text(self.threshold)}"
        return f"{self.name} is {_text(self.measured)} (allowed: {allowed})"


def at_most(name: str, measured: float, threshold: float) -> Check:
    """Check that a number does not exceed `threshold`; NaN never passes."""
    return Check(name, float(measured), "at most", threshold, bool(measured <= threshold))


def at_least(name: str, measured: float, threshold: float) -> Check:
    """Check that a number reaches `threshold`; NaN never passes."""
    return Check(name, float(measured), "at least", threshold, bool(measured >= threshold))


def exactly(name: str, measured: Measured, wanted: Measured) -> Check:
    """Check that a value equals `wanted`."""
    return Check(name, measured, "exactly", wanted, measured == wanted)


def for_the_record(name: str, measured: float) -> Check:
    """Keep a figure that decides nothing."""
    return Check(name, measured, "for the record", measured, passed=True)


@dataclass(frozen=True)
class Verdict:
    """All checks of one model."""

    thresholds: Thresholds
    images: int
    """Number of images that were compared."""
    checks: tuple[Check, ...]

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks that did not pass."""
        return tuple(check for check in self.checks if not check.passed)

    def measured(self, name: str) -> Measured:
        """Return what the check called `name` measured. Raises KeyError if it was not made."""
        return {check.name: check.measured for check in self.checks}[name]

    def require(self, model: str) -> None:
        """Raise GateRefused, which names every check that failed with its figures, unless all passed."""
        if self.failed:
            alike: dict[str, list[Check]] = {}
            for check in self.failed:
                alike.setdefault(re.sub(r"\d+", "", check.name), []).append(check)
            findings = "; ".join(f"{first}{f' and {len(others)} more of the kind' if others else ''}" for first, *others in alike.values())
            raise GateRefused(
                f"{model} was refused by the gate ({self.thresholds.precision}, {self.images:,} images) and not published: {findings}"
            )

    def as_json(self) -> dict[str, object]:
        """Return everything for a version's report. A number that JSON cannot hold is written as text."""
        return {
            "precision": self.thresholds.precision,
            "pictures": self.images,
            "passed": not self.failed,
            "checks": [
                {
                    "name": check.name,
                    "measured": _json(check.measured),
                    "relation": check.relation,
                    "threshold": _json(check.threshold),
                    "passed": check.passed,
                }
                for check in self.checks
            ],
        }


def _json(value: Measured) -> Measured:
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _text(value: Measured) -> str:
    return f"{value:.6g}" if isinstance(value, float | int) else value
