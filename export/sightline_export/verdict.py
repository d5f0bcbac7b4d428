"""The gate's findings: every check with what was measured and what was allowed, and the sentence that refuses a model."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Literal

from sightline.errors import GateRefused

Measured = float | str

ACCURACY: Final = "accuracy"
TORCH_ACCURACY: Final = "accuracy of torch"


@dataclass(frozen=True)
class Thresholds:
    """How far the exported model's answers may be from the trained network's, for one precision. p is a probability, 0..1."""

    precision: Literal["fp32"]
    max_delta_p: float
    """Largest |Δp| over all pictures and classes."""
    mean_delta_p: float
    """Mean |Δp| over all pictures and classes."""
    max_delta_log_p: float
    """Largest |Δ ln p|, which equals the difference of logits up to a constant. Where a model is sure of everything its probabilities
    are all 0 or 1 whatever its weights are multiplied with; this still moves."""
    smallest_p: float
    """Probabilities below it count as it for |Δ ln p|."""
    min_agreement: float
    """Least fraction of pictures with the same most likely class."""
    max_delta_accuracy: float
    """Largest difference of accuracy, as a fraction, between the two, and to what the training run reported."""
    max_delta_p_in_batch: float
    """Largest |Δp| of a picture between one batch and another."""
    max_delta_sum: float
    """How far the probabilities of one picture may sum from 1."""


FP32: Final = Thresholds(
    precision="fp32",
    max_delta_p=1e-4,
    mean_delta_p=1e-5,
    max_delta_log_p=5e-3,
    smallest_p=1e-30,
    min_agreement=0.9999,
    max_delta_accuracy=1e-3,
    max_delta_p_in_batch=1e-5,
    max_delta_sum=1e-5,
)
"""Sixty times the noise of float32 or more, and a tenth or less of what one layer's weights times 1.05 do. MNIST's MLP, 10,000 test
pictures, torch 2.15 and ONNX Runtime 1.31 on a CPU: noise max |Δp| 1.5e-6, mean 8e-9, max |Δ ln p| 1.5e-5; times 1.05: 0.027, 3e-4, 3.0."""

THRESHOLDS: Final[Mapping[str, Thresholds]] = MappingProxyType({FP32.precision: FP32})


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str
    measured: Measured
    relation: Literal["at most", "at least", "exactly", "for the record"]
    threshold: Measured
    passed: bool

    def __str__(self) -> str:
        """For people: `max |Δp| is 0.0312 (allowed: at most 0.0001)`."""
        if self.relation == "for the record":
            return f"{self.name} is {_shown(self.measured)}"
        allowed = _shown(self.threshold) if self.relation == "exactly" else f"{self.relation} {_shown(self.threshold)}"
        return f"{self.name} is {_shown(self.measured)} (allowed: {allowed})"


def at_most(name: str, measured: float, threshold: float) -> Check:
    """A number that must not exceed `threshold`; NaN never passes."""
    return Check(name, float(measured), "at most", threshold, bool(measured <= threshold))


def at_least(name: str, measured: float, threshold: float) -> Check:
    """A number that must reach `threshold`; NaN never passes."""
    return Check(name, float(measured), "at least", threshold, bool(measured >= threshold))


def noted(name: str, measured: float) -> Check:
    """A figure that is kept and decides nothing."""
    return Check(name, measured, "for the record", measured, passed=True)


def said(error: BaseException) -> str:
    """What an error says, on one line of at most 200 characters."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def holds(name: str, measured: Measured, wanted: Measured) -> Check:
    """Something that must be exactly as `wanted`."""
    return Check(name, measured, "exactly", wanted, measured == wanted)


@dataclass(frozen=True)
class Verdict:
    """All checks of one model."""

    thresholds: Thresholds
    pictures: int
    """How many pictures were compared."""
    checks: tuple[Check, ...]

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks that did not pass."""
        return tuple(check for check in self.checks if not check.passed)

    def measured(self, name: str) -> Measured:
        """What the check called `name` measured. Raises KeyError if it was not made."""
        return {check.name: check.measured for check in self.checks}[name]

    def require(self, model: str) -> None:
        """Raise GateRefused, which names every check that failed with its figures, unless all passed."""
        if self.failed:
            kinds: dict[str, list[Check]] = {}
            for check in self.failed:
                kinds.setdefault(re.sub(r"\d+", "", check.name), []).append(check)
            findings = "; ".join(f"{first}{f' and {len(others)} more of the kind' if others else ''}" for first, *others in kinds.values())
            raise GateRefused(
                f"{model} was refused by the gate ({self.thresholds.precision}, {self.pictures:,} pictures) and not published: {findings}"
            )

    def as_json(self) -> dict[str, Any]:
        """Everything, for a version's report. A number that JSON cannot hold is written as text."""
        return {
            "precision": self.thresholds.precision,
            "pictures": self.pictures,
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


def _shown(value: Measured) -> str:
    return f"{value:.6g}" if isinstance(value, float | int) else value
