"""The answers that a server must give while it is measured: a server that answers wrongly has no speed.

They are its own, to each image alone, once it has given the published ones to the golden images. perf_analyzer holds every answer of a
measurement to them, to the bit. Where the last bits of an answer depend on what else is in its batch, or perf_analyzer cannot compare,
as many requests of the same size are under way right before and after the measurement, and their answers are held to the same ones
within the tolerance of the model's golden images.
"""

import itertools
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Event
from typing import Final

import numpy as np
import numpy.typing as npt

from sightline.bench.settings import Load
from sightline.errors import ModelError
from sightline.repository.golden import GoldenSet
from sightline.served_model import Request, ServedModel
from sightline.transport import Transport

ALONE_S: Final = 10.0
"""A slow model is asked for the answers to as many images as it gives in this time, and measured with these."""

FEWEST_IMAGES: Final = 8

HELD_S: Final = 1.0
"""For so long requests are under way around a measurement whose answers perf_analyzer cannot hold to the expected ones."""

MOST_THREADS: Final = 64

TOLERANCE: Final = 1e-4
"""Of a model without golden images: what the gate allows in FP32."""

Pixels = npt.NDArray[np.uint8]
Probabilities = npt.NDArray[np.float32]


@dataclass(frozen=True)
class ExpectedAnswers:
    """Images, and what the server must answer to them."""

    pixels: Pixels
    """uint8 [N, H, W, C]."""
    answers: Probabilities
    """float32 [N, classes], to the bit."""
    tolerance: float
    """Largest |Δp| that an answer may have where bits cannot be compared."""


def published_answers(served: ServedModel, golden: GoldenSet | None) -> GoldenSet | None:
    """Return the published answers that the model must give: those of its golden images, or that of its golden sample; None without any.

    `golden` is what the caller has read in a repository; where the server's sample is none of these images, it is another model's
    repository, and does not count. Raises ContractError if the sample that the server has is no valid one.
    """
    if served.version not in served.samples:
        return golden
    sample = served.sample_of(served.version)
    if golden is not None:
        for pixels, probabilities in zip(golden.pixels, golden.probabilities, strict=True):
            if np.array_equal(pixels, sample.pixels) and np.array_equal(probabilities, sample.probabilities):
                return golden
    return GoldenSet(sample.pixels[None], np.array([-1], np.int64), sample.probabilities[None], sample.tolerance)


def expected_answers(transport: Transport, served: ServedModel, pixels: Sequence[Pixels], published: GoldenSet | None) -> ExpectedAnswers:
    """Hold the server to the published answers, then ask it about each image alone, for ALONE_S at most.

    Raises ModelError if an answer is not the published one.
    """
    if published is not None:
        _demand_published(transport, served, published)
    answers: list[Probabilities] = []
    began_s = time.monotonic()
    for image in pixels:
        answers.append(_answers(transport, served, image[None])[0])
        if time.monotonic() - began_s > ALONE_S and len(answers) >= FEWEST_IMAGES:
            break
    tolerance = TOLERANCE if published is None else published.tolerance
    return ExpectedAnswers(np.stack(pixels[: len(answers)]), np.stack(answers), tolerance)


def hold_under_load(transport: Transport, served: ServedModel, expected: ExpectedAnswers, load: Load) -> int:
    """Keep so many requests under way for HELD_S; return how many answers were held to the expected ones.

    Each thread sends two requests at least. More than MOST_THREADS requests are not under way. Raises ModelError for an answer that
    differs by more than the tolerance.
    """
    ended = Event()
    ends_s = time.monotonic() + HELD_S
    batches = _batches(len(expected.pixels), load.batch)

    def ask(indices_of_thread: Iterator[npt.NDArray[np.intp]]) -> int:
        count = 0
        try:
            while not ended.is_set() and (count < 2 * load.batch or time.monotonic() < ends_s):
                indices = next(indices_of_thread)
                answers = _answers(transport, served, expected.pixels[indices])
                _demand_expected(served, expected, load, indices, answers)
                count += len(indices)
        except BaseException:
            ended.set()
            raise
        return count

    threads = min(load.concurrency, MOST_THREADS)
    with ThreadPoolExecutor(threads, thread_name_prefix="sightline-bench") as pool:
        # Each begins with another image, as perf_analyzer's threads do.
        asked = [pool.submit(ask, itertools.cycle(batches[at % len(batches) :] + batches[: at % len(batches)])) for at in range(threads)]
        return sum(each.result() for each in asked)


def _batches(count: int, batch: int) -> list[npt.NDArray[np.intp]]:
    """The images of each request: one after another, the first ones again where there are too few."""
    return [np.arange(start, start + batch) % count for start in range(0, count, batch)]


def _demand_published(transport: Transport, served: ServedModel, published: GoldenSet) -> None:
    for number, (image, probabilities) in enumerate(zip(published.pixels, published.probabilities, strict=True), 1):
        delta = _delta(_answers(transport, served, image[None])[0], probabilities)
        if not delta <= published.tolerance:
            raise ModelError(
                f"the model {served.name} version {served.version} on {served.url} answers wrongly, so its speed means nothing: its answer "
                f"to golden image {number} of {len(published.pixels)} differs from the published one by |Δp| {delta:.3g}, and "
                f"{published.tolerance:g} is allowed. Was its file replaced?"
            )


def _demand_expected(
    served: ServedModel, expected: ExpectedAnswers, load: Load, indices: npt.NDArray[np.intp], answers: Probabilities
) -> None:
    for index, answer in zip(indices, answers, strict=True):
        delta = _delta(answer, expected.answers[index])
        if not delta <= expected.tolerance:
            raise ModelError(
                f"the model {served.name} version {served.version} on {served.url} answers wrongly under load, so its speed means nothing: "
                f"with {load} its answer to image {index + 1} of {len(expected.pixels)} differs from its answer to that image alone by "
                f"|Δp| {delta:.3g}, and {expected.tolerance:g} is allowed"
            )


def _answers(transport: Transport, served: ServedModel, pixels: Pixels) -> Probabilities:
    request = Request(served.name, served.version, served.card.input, pixels, served.card.output)
    return served.checked(transport.infer(*request.arguments()), len(pixels)).values


def _delta(one: Probabilities, other: Probabilities) -> float:
    return float(np.abs(one.astype(np.float64) - other).max())
