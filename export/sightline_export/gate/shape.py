"""Measures how fast a model is on one core: how many images one run of it should have, and what that brings.

In ONNX Runtime in this process, in a second or a few; `sightline.repository.shape` decides by it. How instances and threads share the cores
is not measured: in one process, over such moments, the figures contradicted each other from one time to the next.
"""

import time
from collections.abc import Callable
from typing import Final

import numpy as np

from sightline.batches import Pixels, Predict
from sightline.card import ModelCard
from sightline.repository.report import ShapeReport
from sightline_export.graph.runtimes import in_onnx_runtime

ROUNDS: Final = 4
SHORTEST_S: Final = 0.02
"""A turn runs a model as often as fills this time."""
LONGEST_RUN_S: Final = 1.0
"""Batches whose single run takes longer are not tried, and no larger ones either."""
LARGEST_RUN: Final = 64


def measure(model: bytes, card: ModelCard, pixels: Pixels, cores: int) -> ShapeReport:
    """Measure the serialised ONNX `model` on one of `cores` cores with uint8 `pixels` [N, H, W, C]."""

    def batch(size: int) -> Pixels:
        return np.ascontiguousarray(pixels[np.arange(size) % len(pixels)])

    predict = in_onnx_runtime(model, card, threads=1)
    batches = _batches(predict, batch, min(LARGEST_RUN, card.max_batch_size))
    rates = dict.fromkeys(batches, 0.0)
    for _ in range(ROUNDS):
        for size, images in batches.items():
            # The best of the turns: whatever else a machine does makes a run slower, in its own core's time too.
            rates[size] = max(rates[size], _rate(predict, images))
    runs = [{"images": size, "images_per_s": round(rate, 1)} for size, rate in rates.items()]
    return ShapeReport.model_validate({"cores": cores, "runs": runs})


def _batches(predict: Predict, batch: Callable[[int], Pixels], largest: int) -> dict[int, Pixels]:
    """Powers of two up to the last whose run does not take too long, and the largest itself."""
    batches: dict[int, Pixels] = {}
    for size in sorted({*(1 << power for power in range(largest.bit_length())), largest}):
        images = batch(size)
        predict(images)  # allocates
        began_s = time.perf_counter()
        predict(images)
        if batches and time.perf_counter() - began_s > LONGEST_RUN_S:
            break
        batches[size] = images
    return batches


def _rate(predict: Predict, pixels: Pixels) -> float:
    """Return images/s by the processor's time: what others do on the machine meanwhile takes nothing from it."""
    done, cpu_s, until_s = 0, time.process_time(), time.perf_counter() + SHORTEST_S
    while not done or time.perf_counter() < until_s:
        predict(pixels)
        done += len(pixels)
    return done / max(time.process_time() - cpu_s, 1e-6)
