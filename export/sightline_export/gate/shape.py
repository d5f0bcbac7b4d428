"""Finds out how a model is served fast on this machine: how many images one run of it should have, how many instances, how many threads.

What one core computes is measured in ONNX Runtime in this process, in a second or a few; `choose` decides by it. How instances and threads
share the cores is not measured: in one process, over such moments, the figures contradicted each other from one time to the next.
"""

import time
from collections.abc import Callable, Mapping
from typing import Final

import numpy as np

from sightline.batches import Pixels, Predict
from sightline.card import ModelCard
from sightline.repository.instances import InstanceSettings
from sightline.repository.report import ShapeReport
from sightline_export.graph.runtimes import in_onnx_runtime

ROUNDS: Final = 4
SHORTEST_S: Final = 0.02
"""A turn runs a model as often as fills this time."""
LONGEST_RUN_S: Final = 1.0
"""Batches whose single run takes longer are not tried, and no larger ones either."""
LARGEST_RUN: Final = 64
WORTH: Final = 1.05
"""A larger run must bring so much: it costs memory and latency."""
CARRIED_PER_S: Final = 10_000.0
"""Images/s that a server on two cores can hand over to one model: the wheel's Triton with its Python backend answered 9,450 requests/s of
an MLP. An instance that computes more alone needs no second one, which would only divide the batches."""
MOST_INSTANCES: Final = 4
"""Each is a process with a copy of the model. Where there are more cores, each has several threads."""
SLOW_PER_S: Final = 1_000.0
"""Below that, what a request costs beside the network no longer matters, and neither does handing over several at once."""
LARGE_FLOP: Final = 1_000_000_000
"""Of an image, a multiplication and an addition being two. On two CPU cores a CNN of 30 MFLOP was fastest as two instances of one thread,
VGG16 (31 GFLOP) as one with both cores."""
HEAVY_BYTES: Final = 200 * 1024 * 1024
"""A model as large as that is loaded once, whatever a second copy would bring."""


def choose(figures: ShapeReport, model_bytes: int, flop: int) -> InstanceSettings:
    """Choose by what one core computes, by the size of the file, and by the operations of an image."""
    rates = {run.images: run.images_per_s for run in figures.runs}
    size = best_run(rates)
    instances, threads = _spread(figures.cores, rates[size], model_bytes, flop)
    delay_us = None if size == 1 and rates[1] < SLOW_PER_S else 0
    return InstanceSettings(instances, threads, delay_us, size)


def best_run(rates: Mapping[int, float]) -> int:
    """Return the smallest size of run that no larger one beats by WORTH."""
    return min(size for size, rate in rates.items() if rate * WORTH >= max(rates.values()))


def _spread(cores: int, alone: float, model_bytes: int, flop: int) -> tuple[int, int]:
    """Instances, and threads of each: one that computes `alone` images/s on a core, several that share the cores, or one with all."""
    if cores == 1 or alone >= CARRIED_PER_S:
        return 1, 1
    if model_bytes >= HEAVY_BYTES or flop >= LARGE_FLOP:
        return 1, 0
    instances = min(cores, MOST_INSTANCES)
    return instances, cores // instances


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
