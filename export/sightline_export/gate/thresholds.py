"""The gate's thresholds: how far each precision's answers may be from the trained network's, and where the figures come from."""

import math
from dataclasses import dataclass
from typing import Final

ANYTHING: Final = math.inf
"""A threshold that every figure keeps."""


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """How far the exported model's answers may be from the trained network's, for one precision. p is a probability, 0..1.

    What may be ANYTHING is no check: rounding to 8 bits may tip any single image, so that only all of them together say something.
    """

    precision: str
    """The name of the precision."""
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


@dataclass(frozen=True)
class DtypeShare:
    """What part of a model must have the type that its precision is named after."""

    dtype: str
    """As NumPy calls it: `float16`."""
    least: float
    """0..1."""


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
