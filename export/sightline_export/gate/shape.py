"""Finds out how a model is served fast on this machine: how many images one run of it should have, how many instances, how many threads.

Measured in ONNX Runtime in this process, in a few seconds. What follows from the figures is decided by `choose`, which knows no clock.
"""

import statistics
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from sightline.batches import Pixels, Predict
from sightline.card import ModelCard
from sightline.repository.instances import InstanceSettings
from sightline_export.graph.runtimes import in_onnx_runtime

ROUNDS: Final = 3
SHORTEST_S: Final = 0.04
"""A turn runs a model as often as fills this time."""
LONGEST_RUN_S: Final = 1.0
"""Batches whose single run takes longer are not tried, and no larger ones either."""
LARGEST_RUN: Final = 64
WORTH: Final = 1.05
"""A larger run, more instances or more threads must bring so much: each costs memory, and the first two latency."""
CARRIED_PER_S: Final = 20_000.0
"""Images/s that a server on two cores can hand over at most, whatever the model: NVIDIA's C++ backend answered 19,800 requests/s of an
MLP, the wheel's Triton with a Python backend 9,450. An instance that computes more alone needs no second one."""
HEAVY_BYTES: Final = 200 * 1024 * 1024
"""A model as large as that is loaded once, whatever a second copy would bring."""


@dataclass(frozen=True)
class Figures:
    """Images per second on one machine."""

    cores: int
    by_run: Mapping[int, float]
    """Images of a run → images/s of one instance of one thread."""
    instances: float
    """Of as many instances of one thread as there are cores, with runs of the size that `by_run` favours."""
    threads: float
    """Of one instance of as many threads, with the same runs."""


@dataclass(frozen=True)
class Shape:
    """How a model is served."""

    settings: InstanceSettings
    largest_run: int
    """Images that one run of the model has at most; larger requests are answered in several."""


def choose(figures: Figures, model_bytes: int) -> Shape:
    """Choose from what was measured."""
    best = max(figures.by_run.values())
    run = min(size for size, rate in figures.by_run.items() if rate * WORTH >= best)
    alone = figures.by_run[run]
    if figures.cores == 1 or alone >= CARRIED_PER_S or max(figures.instances, figures.threads) < alone * WORTH:
        settings = InstanceSettings(instances=1, threads=1)
    elif figures.instances < figures.threads * WORTH or model_bytes >= HEAVY_BYTES:
        settings = InstanceSettings(instances=1, threads=0)
    else:
        settings = InstanceSettings(instances=figures.cores, threads=1)
    return Shape(settings, run)


def measure(model: bytes, card: ModelCard, pixels: Pixels, cores: int) -> Figures:
    """Measure the serialised ONNX `model` on `cores` cores with uint8 `pixels` [N, H, W, C]."""

    def batch(size: int) -> Pixels:
        return np.ascontiguousarray(pixels[np.arange(size) % len(pixels)])

    one = in_onnx_runtime(model, card, threads=1)
    sizes = _sizes(one, batch, min(LARGEST_RUN, card.max_batch_size))
    by_run = _medians({size: _Turn([one], batch(size)) for size in sizes})
    run = min(size for size, rate in by_run.items() if rate * WORTH >= max(by_run.values()))
    if cores == 1 or by_run[run] >= CARRIED_PER_S:
        return Figures(cores, by_run, by_run[run], by_run[run])
    others = [in_onnx_runtime(model, card, threads=1) for _ in range(cores - 1)] if len(model) < HEAVY_BYTES else []
    spread = _medians({0: _Turn([one, *others], batch(run)), 1: _Turn([in_onnx_runtime(model, card, threads=cores)], batch(run))})
    return Figures(cores, by_run, spread[0], spread[1])


def _sizes(predict: Predict, batch: Callable[[int], Pixels], largest: int) -> list[int]:
    """Powers of two up to the first whose run takes too long, and the largest itself."""
    sizes = []
    for size in sorted({*(1 << power for power in range(largest.bit_length())), largest}):
        predict(batch(size))  # allocates
        began_s = time.perf_counter()
        predict(batch(size))
        if sizes and time.perf_counter() - began_s > LONGEST_RUN_S:
            break
        sizes.append(size)
    return sizes


@dataclass(frozen=True)
class _Turn:
    """Instances that run at the same time, each with the same batch."""

    instances: Sequence[Predict]
    pixels: Pixels

    def rate(self) -> float:
        """Return images/s of all instances together."""
        done = [0] * len(self.instances)
        until_s = (began_s := time.perf_counter()) + SHORTEST_S

        def run(place: int) -> None:
            while time.perf_counter() < until_s or not done[place]:
                self.instances[place](self.pixels)
                done[place] += len(self.pixels)

        threads = [threading.Thread(target=run, args=(place,)) for place in range(1, len(self.instances))]
        for thread in threads:
            thread.start()
        run(0)
        for thread in threads:
            thread.join()
        return sum(done) / (time.perf_counter() - began_s)


def _medians(turns: Mapping[int, _Turn]) -> dict[int, float]:
    """Take the turns in turn, and return the median of each."""
    rates: dict[int, list[float]] = {name: [] for name in turns}
    for turn in turns.values():
        turn.rate()
    for _ in range(ROUNDS):
        for name, turn in turns.items():
            rates[name].append(turn.rate())
    return {name: statistics.median(values) for name, values in rates.items()}
