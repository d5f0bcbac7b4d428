"""The gate: an exported model that does not give the trained network's answers on real images is not published.

Every check is made and kept, those that pass too. A comparison with NaN is false, and every check here passes on true only.
"""

from collections.abc import Callable, Iterator
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
import onnxruntime
import torch

from sightline.card import ModelCard
from sightline.errors import UsageError
from sightline_export.gate.checks import (
    ACCURACY,
    AGREEMENT,
    ANYTHING,
    FP32,
    MAX_DELTA_P,
    MEAN_DELTA_P,
    Check,
    Thresholds,
    Verdict,
    at_least,
    at_most,
    holds,
    noted,
    said,
)
from sightline_export.gate.structure import check_structure
from sightline_training.networks.wrappers import comfortable_batch

Pixels: TypeAlias = npt.NDArray[np.uint8]
Labels: TypeAlias = npt.NDArray[np.int64]
Probabilities: TypeAlias = npt.NDArray[np.float32]
Answer: TypeAlias = Callable[[Pixels], Probabilities]

BATCHES: Final = (1, 2, 3, 7)
"""Sizes of batch that are tried besides the card's largest: the odd ones find what was fixed at export."""

IN_BATCHES: Final = 64
"""Images that are asked again in every size of batch, if that fills one."""

TORCH_BATCH: Final = 64
"""At most: of large images so many as torch's own evaluation takes at a time."""


def gate(
    model: bytes,
    network: torch.nn.Module,
    card: ModelCard,
    pixels: Pixels,
    labels: Labels,
    *,
    thresholds: Thresholds = FP32,
    reported_accuracy: float | None = None,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Verdict:
    """Compare the serialised ONNX `model` (ONNX Runtime, CPU) with `network` (torch, CPU) and with `card`.

    `pixels` are uint8 [n, height, width, channels], real images through `sightline.reformat`; `labels` int64 [n], -1 where nobody
    knows. The network gives float32 probabilities [N, classes]. `reported_accuracy` (0..1) is what the training run reported on these
    very images.
    `progress` is called with the images done and to do. Whether the model may be published is `Verdict.require`'s to say.
    """
    if pixels.dtype != np.uint8 or pixels.shape[1:] != card.preprocess.shape or not len(pixels) or len(labels) != len(pixels):
        raise UsageError(
            f"the gate compares uint8 images of shape {card.preprocess.shape}, one label each, not {pixels.dtype} {pixels.shape}"
        )
    structure = tuple(check_structure(model, card, thresholds.precision))
    answers = _answers(model, network, card, pixels, labels, thresholds, reported_accuracy, progress) if structure[0].passed else ()
    return Verdict(thresholds, len(pixels), (*structure, *answers))


def _answers(
    model: bytes,
    network: torch.nn.Module,
    card: ModelCard,
    pixels: Pixels,
    labels: Labels,
    allowed: Thresholds,
    reported_accuracy: float | None,
    progress: Callable[[int, int], None],
) -> Iterator[Check]:
    total, kind = 2 * len(pixels), f"float32 [{len(pixels)}, {len(card.labels)}]"
    size = min(TORCH_BATCH, comfortable_batch(card.preprocess.shape))
    expected, check = _asked("torch's answers", kind, in_torch(network), pixels, size, lambda done: progress(done, total))
    yield check
    try:
        ask = in_onnx_runtime(model, card)
    except Exception as error:  # noqa: BLE001 - ONNX Runtime's errors share no narrower base
        yield holds("loads in ONNX Runtime", said(error), "yes")
        return
    yield holds("loads in ONNX Runtime", "yes", "yes")
    if expected is None:
        return
    given, check = _asked(
        "ONNX Runtime's answers", kind, ask, pixels, card.max_batch_size, lambda done: progress(len(pixels) + done, total)
    )
    yield check
    if given is not None:
        yield from _compare(given, expected, labels, allowed, reported_accuracy)
    # Against torch and not against `given`: a batch frozen at export may not have let us ask.
    yield from _batches(ask, card, pixels, expected, allowed)


def held_to(
    name: str,
    ask: Answer,
    expected: Probabilities,
    reference: str,
    card: ModelCard,
    pixels: Pixels,
    labels: Labels,
    thresholds: Thresholds,
) -> Iterator[Check]:
    """Hold the answers of `ask`, called `name` (a TensorRT plan), to `expected` [n, classes], which `reference` (ONNX Runtime) gave."""
    kind = f"float32 [{len(pixels)}, {len(card.labels)}]"
    given, check = _asked(f"{name}'s answers", kind, ask, pixels, card.max_batch_size, lambda _done: None)
    yield check
    if given is not None:
        yield from _compare(given, expected, labels, thresholds, None, reference)
    yield from _batches(ask, card, pixels, expected, thresholds)


def _asked(
    name: str, kind: str, answer: Answer, pixels: Pixels, size: int, progress: Callable[[int], None]
) -> tuple[Probabilities | None, Check]:
    """All answers, and the check that they were given and are of `kind`; None instead of answers if not."""
    try:
        given = _in_batches(answer, pixels, size, progress)
    except Exception as error:  # noqa: BLE001 - a network may raise anything, and so does ONNX Runtime
        return None, holds(name, said(error), kind)
    check = holds(name, f"{given.dtype} {list(given.shape)}", kind)
    return (given if check.passed else None), check


def in_torch(network: torch.nn.Module) -> Answer:
    """The network as a function of uint8 pixels."""
    network.eval()

    def answer(pixels: Pixels) -> Probabilities:
        with torch.inference_mode():
            given: Probabilities = network(torch.from_numpy(np.ascontiguousarray(pixels))).numpy()
        return given

    return answer


def in_onnx_runtime(model: bytes, card: ModelCard, threads: int = 0) -> Answer:
    """The serialised ONNX model as a function of uint8 pixels, on the CPU with `threads` threads (0: all). Raises ONNX Runtime's errors."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def answer(pixels: Pixels) -> Probabilities:
        given: Probabilities = session.run([card.output], {card.input: pixels})[0]
        return given

    return answer


def _compare(
    given: Probabilities, expected: Probabilities, labels: Labels, allowed: Thresholds, reported: float | None, reference: str = "torch"
) -> Iterator[Check]:
    yield at_most("images with NaN or infinity", int((~np.isfinite(given)).any(axis=1).sum()), 0)
    yield at_most(f"images with NaN or infinity in {reference}", int((~np.isfinite(expected)).any(axis=1).sum()), 0)
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        difference = np.abs(given.astype(np.float64) - expected)
        logs = [np.log(np.maximum(each.astype(np.float64), allowed.smallest_p)) for each in (given, expected)]
        log_difference = np.abs(logs[0] - logs[1])
        yield at_most("max |Σp - 1|", float(np.abs(given.sum(axis=1, dtype=np.float64) - 1).max()), allowed.max_delta_sum)
        yield at_least("smallest p", float(given.min()), 0.0)
        figures = {
            MAX_DELTA_P: (difference.max(), allowed.max_delta_p),
            MEAN_DELTA_P: (difference.mean(), allowed.mean_delta_p),
            "max |Δ ln p|": (log_difference.max(), allowed.max_delta_log_p),
            "mean |Δ ln p|": (log_difference.mean(), allowed.mean_delta_log_p),
            "probability moved": (difference.sum(axis=1).mean() / 2, allowed.max_moved),
        }
    for name, (measured, threshold) in figures.items():
        if threshold < ANYTHING:
            yield at_most(name, float(measured), threshold)
        else:
            yield noted(name, float(measured))
    # To argmax NaN is the largest, and two of them would agree.
    top = np.where(np.isfinite(given).all(axis=1), given.argmax(axis=1), -1)
    expected_top = np.where(np.isfinite(expected).all(axis=1), expected.argmax(axis=1), -2)
    yield at_least(AGREEMENT, float((top == expected_top).mean()), allowed.min_agreement)
    known = labels >= 0
    if not known.any():
        return
    accuracy, expected_accuracy = float((top == labels)[known].mean()), float((expected_top == labels)[known].mean())
    yield noted(ACCURACY, accuracy)
    yield noted(f"accuracy of {reference}", expected_accuracy)
    if allowed.max_delta_accuracy < ANYTHING:
        yield at_most(f"|Δ accuracy| to {reference}", abs(accuracy - expected_accuracy), allowed.max_delta_accuracy)
    if allowed.max_accuracy_lost < ANYTHING:
        yield at_most(f"accuracy lost against {reference}", expected_accuracy - accuracy, allowed.max_accuracy_lost)
    if reported is not None:
        # One image may always tip: the run may have been evaluated on another device.
        tolerance = max(FP32.max_delta_accuracy, 1.01 / int(known.sum()))
        yield at_most("|Δ accuracy| of torch to the run's report", abs(expected_accuracy - reported), tolerance)


def _batches(ask: Answer, card: ModelCard, pixels: Pixels, expected: Probabilities, allowed: Thresholds) -> Iterator[Check]:
    alone: Probabilities | None = None
    for size in sorted({*(size for size in BATCHES if size < card.max_batch_size), card.max_batch_size}):
        # As many images as fill batches of this size, again from the first one if there are not enough.
        count = size * max(1, min(IN_BATCHES, len(pixels)) // size)
        chosen = np.arange(count) % len(pixels)
        name = f"batches of {size}: max |Δp|"
        try:
            given = _in_batches(ask, pixels[chosen], size)
        except Exception as error:  # noqa: BLE001 - as above
            yield holds(name, said(error), "a number")
            continue
        if given.shape != expected[chosen].shape:
            yield holds(name, f"an answer of shape {list(given.shape)}", f"shape {list(expected[chosen].shape)}")
            continue
        if allowed.max_delta_p < ANYTHING:
            yield at_most(name, _largest(given, expected[chosen]), allowed.max_delta_p)
        if size == 1:
            alone = given
        elif alone is not None:
            both = min(len(given), len(alone))
            yield at_most(
                f"batches of {size} against single images: max |Δp|", _largest(given[:both], alone[:both]), allowed.max_delta_p_in_batch
            )


def _in_batches(answer: Answer, pixels: Pixels, size: int, progress: Callable[[int], None] = lambda _done: None) -> Probabilities:
    parts = []
    for start in range(0, len(pixels), size):
        parts.append(answer(pixels[start : start + size]))
        progress(min(start + size, len(pixels)))
    return np.concatenate(parts)


def _largest(given: Probabilities, expected: Probabilities) -> float:
    with np.errstate(invalid="ignore"):
        return float(np.abs(given.astype(np.float64) - expected).max())
