"""The gate's findings: every check with what was measured and what was allowed, and the sentence that refuses a model."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Literal

from sightline.errors import GateRefused

Measured = float | str

Precision = Literal["fp32", "fp16", "int8"]
"""Of the weights and of most operations; what goes in is uint8 and what comes out FP32 in all of them."""

ACCURACY: Final = "accuracy"
MAX_DELTA_P: Final = "max |Δp|"
MEAN_DELTA_P: Final = "mean |Δp|"
ANYTHING: Final = math.inf
"""A threshold that asks nothing."""
AGREEMENT: Final = "top-1 agreement"


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """How far the exported model's answers may be from the trained network's, for one precision. p is a probability, 0..1.

    What may be ANYTHING is no check: rounding to 8 bits may tip any single image, so that only all of them together say something.
    """

    precision: Precision
    max_delta_p: float
    """Largest |Δp| over all images and classes."""
    mean_delta_p: float
    """Mean |Δp| over all images and classes."""
    max_delta_log_p: float
    """Largest |Δ ln p|, which equals the difference of logits up to a constant. Where a model is sure of everything its probabilities
    are all 0 or 1 whatever its weights are multiplied with; this still moves."""
    smallest_p: float
    """Probabilities below it count as it for |Δ ln p|."""
    mean_delta_log_p: float
    """Mean over all images and classes of |Δ ln p|."""
    max_moved: float
    """Largest mean over images of the probability that moved from one class to another, half of Σ|Δp|: in it, the number of classes
    has no part."""
    min_agreement: float
    """Least fraction of images with the same most likely class."""
    max_delta_accuracy: float
    """Largest difference of accuracy, as a fraction, between the two."""
    max_accuracy_lost: float
    """The most accuracy, as a fraction, that the exported model may lose against the network; it may gain."""
    max_delta_p_in_batch: float
    """Largest |Δp| of an image between one batch and another."""
    max_delta_sum: float
    """How far the probabilities of one image may sum from 1."""
    golden_tolerance: float
    """Largest |Δp| between a golden image's expected answer and what a server says of it."""


FP32: Final = Thresholds(
    precision="fp32",
    max_delta_p=1e-4,
    mean_delta_p=1e-5,
    max_delta_log_p=5e-3,
    smallest_p=1e-30,
    mean_delta_log_p=ANYTHING,
    max_moved=ANYTHING,
    min_agreement=0.9999,
    max_delta_accuracy=1e-3,
    max_accuracy_lost=ANYTHING,
    max_delta_p_in_batch=1e-5,
    max_delta_sum=1e-5,
    golden_tolerance=1e-4,
)
"""Sixty times the noise of float32 or more, and a tenth or less of what one layer's weights times 1.05 do. MNIST's MLP, 10,000 test
images, torch 2.15 and ONNX Runtime 1.31 on a CPU: noise max |Δp| 1.5e-6, mean 8e-9, max |Δ ln p| 1.5e-5; times 1.05: 0.027, 3e-4, 3.0."""

FP16: Final = Thresholds(
    precision="fp16",
    max_delta_p=2e-2,
    mean_delta_p=2e-4,
    max_delta_log_p=ANYTHING,
    smallest_p=1e-7,
    mean_delta_log_p=2e-2,
    max_moved=1e-3,
    min_agreement=0.999,
    max_delta_accuracy=2e-3,
    max_accuracy_lost=ANYTHING,
    max_delta_p_in_batch=5e-3,
    max_delta_sum=1e-5,
    golden_tolerance=2e-2,
)
"""Ten times the noise of float16 or more. `mnist`, `asl` and `asl_cnn`, 7,172 to 10,000 test images, ONNX Runtime 1.31 on a CPU: max |Δp|
0.0006 to 0.0021, mean 2e-7 to 9e-6, mean |Δ ln p| 0.0005 to 0.001, moved 2e-6 to 1e-4, and no label changed."""

INT8: Final = Thresholds(
    precision="int8",
    max_delta_p=ANYTHING,
    mean_delta_p=ANYTHING,
    max_delta_log_p=ANYTHING,
    smallest_p=1e-7,
    mean_delta_log_p=0.15,
    max_moved=0.02,
    min_agreement=0.98,
    max_delta_accuracy=ANYTHING,
    max_accuracy_lost=2e-3,
    max_delta_p_in_batch=1e-4,
    max_delta_sum=1e-5,
    golden_tolerance=5e-2,
)
"""Some five times the noise of 8 bits. The same models and `cifar10`: max |Δp| 0.02 to 0.09, mean |Δ ln p| 0.018 (`mnist` and `asl`), moved
4e-5 to 4e-3, agreement 99.6 to 100 %, accuracy lost at most 0.02 points. In a test, the last layer's weights times 1.1 are refused."""

THRESHOLDS: Final[Mapping[Precision, Thresholds]] = MappingProxyType({each.precision: each for each in (FP32, FP16, INT8)})


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
    images: int
    """How many images were compared."""
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
                f"{model} was refused by the gate ({self.thresholds.precision}, {self.images:,} images) and not published: {findings}"
            )

    def as_json(self) -> dict[str, Any]:
        """Everything, for a version's report. A number that JSON cannot hold is written as text."""
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


def _shown(value: Measured) -> str:
    return f"{value:.6g}" if isinstance(value, float | int) else value
