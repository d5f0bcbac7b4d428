"""The gate: an exported model that does not give the trained network's answers on real images is not published.

Every check is made and kept, those that pass too. A comparison with NaN is false, and every check here passes on true only.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from sightline.batches import Pixels, Predict, Probabilities, batch_size_for, in_batches
from sightline.card import ModelCard
from sightline.errors import UsageError
from sightline.host.text import one_line
from sightline_export.gate.checks import (
    ACCURACY,
    AGREEMENT,
    MAX_DELTA_P,
    MEAN_DELTA_P,
    NOT_FINITE,
    Check,
    Verdict,
    at_least,
    at_most,
    exactly,
    for_the_record,
)
from sightline_export.gate.structure import check_structure
from sightline_export.gate.thresholds import ANYTHING, FP32, DtypeShare, Thresholds
from sightline_export.graph.runtimes import Labels, in_onnx_runtime, in_torch

if TYPE_CHECKING:
    from torch import nn

BATCHES: Final = (1, 2, 3, 7)
"""Batch sizes that are tried besides the card's largest: the odd ones find what was fixed at export."""

IN_BATCHES: Final = 64
"""Images that are asked about again in every batch size, if that fills one."""

TORCH_BATCH: Final = 64
"""At most: of large images as many as torch's own evaluation takes at a time."""


@dataclass(frozen=True, eq=False)
class ComparedImages:
    """The images that two models are asked about."""

    pixels: Pixels = field(repr=False)
    """uint8 [n, height, width, channels], real images through `sightline.reformat`."""
    labels: Labels = field(repr=False)
    """int64 [n], -1 where nobody knows."""
    reported_accuracy: float | None = None
    """What the training run reported on these very images, 0..1; None if it reported nothing on exactly these."""

    def __len__(self) -> int:
        """Number of images."""
        return len(self.pixels)


@dataclass(frozen=True, eq=False)
class Reference:
    """The answers that a model is held to."""

    runtime: str
    """What gave them: `torch`, `ONNX Runtime`."""
    probabilities: Probabilities | None = field(repr=False)
    """float32 [n, classes]; None if there are none of this kind, as `check` says."""
    check: Check


def ask_torch(
    network: "nn.Module", card: ModelCard, images: ComparedImages, progress: Callable[[int], None] = lambda _done: None
) -> Reference:
    """Ask the trained network about all images, once for every precision that is compared with it. Never raises what the network raises."""
    size = min(TORCH_BATCH, batch_size_for(card.preprocess.shape))
    probabilities, check = _ask("torch's answers", in_torch(network), card, images.pixels, size, progress)
    return Reference("torch", probabilities, check)


def gate(
    model: bytes,
    card: ModelCard,
    images: ComparedImages,
    reference: Reference,
    *,
    thresholds: Thresholds = FP32,
    weights: DtypeShare | None = None,
    progress: Callable[[int], None] = lambda _done: None,
) -> Verdict:
    """Compare the serialised ONNX `model` (ONNX Runtime, CPU) with the trained network's answers and with `card`.

    `weights` is the share of weights that must have the precision's type. `progress` is called with the number of images that are done.
    Whether the model may be published is `Verdict.require`'s to say. Raises UsageError if the images are not the card's.
    """
    pixels, shape = images.pixels, card.preprocess.shape
    if pixels.dtype != np.uint8 or pixels.shape[1:] != shape or not len(pixels) or len(images.labels) != len(pixels):
        raise UsageError(f"the gate compares uint8 images of shape {shape}, one label each, not {pixels.dtype} {pixels.shape}")
    structure = tuple(check_structure(model, card, weights))
    answers = _check_answers(model, card, images, reference, thresholds, progress) if structure[0].passed else ()
    return Verdict(thresholds, len(images), (*structure, *answers))


def hold_to(
    runtime: str, predict: Predict, reference: Reference, card: ModelCard, images: ComparedImages, thresholds: Thresholds
) -> Iterator[Check]:
    """Hold the answers of `predict`, called `runtime` (a TensorRT plan), to those of `reference`, which must have given some."""
    probabilities, check = _ask(f"{runtime}'s answers", predict, card, images.pixels, card.max_batch_size)
    yield check
    if reference.probabilities is None:
        return
    if probabilities is not None:
        yield from _compare(probabilities, reference.probabilities, images, thresholds, reference.runtime)
    # Against the reference and not against these answers: a batch that was frozen may not have let us ask.
    yield from _compare_batches(predict, card, images.pixels, reference.probabilities, thresholds)


def _check_answers(
    model: bytes, card: ModelCard, images: ComparedImages, reference: Reference, thresholds: Thresholds, progress: Callable[[int], None]
) -> Iterator[Check]:
    yield reference.check
    try:
        predict = in_onnx_runtime(model, card)
    except Exception as error:  # noqa: BLE001 - ONNX Runtime's errors share no narrower base
        yield exactly("loads in ONNX Runtime", one_line(error), "yes")
        return
    yield exactly("loads in ONNX Runtime", "yes", "yes")
    if reference.probabilities is None:
        return
    probabilities, check = _ask("ONNX Runtime's answers", predict, card, images.pixels, card.max_batch_size, progress)
    yield check
    if probabilities is not None:
        yield from _compare(probabilities, reference.probabilities, images, thresholds, reference.runtime)
    yield from _compare_batches(predict, card, images.pixels, reference.probabilities, thresholds)


def _ask(
    name: str, predict: Predict, card: ModelCard, pixels: Pixels, size: int, progress: Callable[[int], None] = lambda _done: None
) -> tuple[Probabilities | None, Check]:
    """Return all answers, and the check that there are as many as images and classes; None instead of answers if not."""
    wanted = f"float32 [{len(pixels)}, {len(card.labels)}]"
    try:
        probabilities = in_batches(predict, pixels, size, progress)
    except Exception as error:  # noqa: BLE001 - a network may raise anything, and so does ONNX Runtime
        return None, exactly(name, one_line(error), wanted)
    check = exactly(name, f"{probabilities.dtype} {list(probabilities.shape)}", wanted)
    return (probabilities if check.passed else None), check


def _compare(
    probabilities: Probabilities, expected: Probabilities, images: ComparedImages, allowed: Thresholds, reference: str
) -> Iterator[Check]:
    yield at_most(NOT_FINITE, int((~np.isfinite(probabilities)).any(axis=1).sum()), 0)
    yield at_most(f"{NOT_FINITE} in {reference}", int((~np.isfinite(expected)).any(axis=1).sum()), 0)
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        difference = np.abs(probabilities.astype(np.float64) - expected)
        log_p, expected_log_p = (np.log(np.maximum(p.astype(np.float64), allowed.smallest_p)) for p in (probabilities, expected))
        log_difference = np.abs(log_p - expected_log_p)
        yield at_most("max |Σp - 1|", float(np.abs(probabilities.sum(axis=1, dtype=np.float64) - 1).max()), allowed.max_delta_sum)
        yield at_least("smallest p", float(probabilities.min()), 0.0)
        figures = {
            MAX_DELTA_P: (difference.max(), allowed.max_delta_p),
            MEAN_DELTA_P: (difference.mean(), allowed.mean_delta_p),
            "max |Δ ln p|": (log_difference.max(), allowed.max_delta_log_p),
            "mean |Δ ln p|": (log_difference.mean(), allowed.mean_delta_log_p),
            "probability moved": (difference.sum(axis=1).mean() / 2, allowed.max_moved),
        }
    for name, (measured, threshold) in figures.items():
        yield at_most(name, float(measured), threshold) if threshold < ANYTHING else for_the_record(name, float(measured))
    # To argmax NaN is the largest, and two of them would agree.
    top = np.where(np.isfinite(probabilities).all(axis=1), probabilities.argmax(axis=1), -1)
    expected_top = np.where(np.isfinite(expected).all(axis=1), expected.argmax(axis=1), -2)
    yield at_least(AGREEMENT, float((top == expected_top).mean()), allowed.min_agreement)
    yield from _compare_accuracies(top, expected_top, images, allowed, reference)


def _compare_accuracies(top: Labels, expected_top: Labels, images: ComparedImages, allowed: Thresholds, reference: str) -> Iterator[Check]:
    known = images.labels >= 0
    if not known.any():
        return
    accuracy, expected_accuracy = (float((labels == images.labels)[known].mean()) for labels in (top, expected_top))
    yield for_the_record(ACCURACY, accuracy)
    yield for_the_record(f"accuracy of {reference}", expected_accuracy)
    if allowed.max_delta_accuracy < ANYTHING:
        yield at_most(f"|Δ accuracy| to {reference}", abs(accuracy - expected_accuracy), allowed.max_delta_accuracy)
    if allowed.max_accuracy_lost < ANYTHING:
        yield at_most(f"accuracy lost against {reference}", expected_accuracy - accuracy, allowed.max_accuracy_lost)
    if images.reported_accuracy is not None:
        # One image may always tip: the run may have been evaluated on another device.
        tolerance = max(FP32.max_delta_accuracy, 1.01 / int(known.sum()))
        yield at_most("|Δ accuracy| of torch to the run's report", abs(expected_accuracy - images.reported_accuracy), tolerance)


def _compare_batches(predict: Predict, card: ModelCard, pixels: Pixels, expected: Probabilities, allowed: Thresholds) -> Iterator[Check]:
    one_by_one: Probabilities | None = None
    for size in sorted({*(size for size in BATCHES if size < card.max_batch_size), card.max_batch_size}):
        # As many images as fill batches of this size, again from the first one if there are not enough.
        count = size * max(1, min(IN_BATCHES, len(pixels)) // size)
        indices = np.arange(count) % len(pixels)
        name = f"batches of {size}: max |Δp|"
        try:
            probabilities = in_batches(predict, pixels[indices], size)
        except Exception as error:  # noqa: BLE001 - as above
            yield exactly(name, one_line(error), "a number")
            continue
        if probabilities.shape != expected[indices].shape:
            yield exactly(name, f"an answer of shape {list(probabilities.shape)}", f"shape {list(expected[indices].shape)}")
            continue
        if allowed.max_delta_p < ANYTHING:
            yield at_most(name, _largest_difference(probabilities, expected[indices]), allowed.max_delta_p)
        if size == 1:
            one_by_one = probabilities
        elif one_by_one is not None:
            common = min(len(probabilities), len(one_by_one))
            difference = _largest_difference(probabilities[:common], one_by_one[:common])
            yield at_most(f"batches of {size} against single pictures: max |Δp|", difference, allowed.max_delta_p_in_batch)


def _largest_difference(probabilities: Probabilities, expected: Probabilities) -> float:
    with np.errstate(invalid="ignore"):
        return float(np.abs(probabilities.astype(np.float64) - expected).max())
