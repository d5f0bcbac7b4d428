"""Finds out how a model is served fast on this machine: how many images one run of it should have, how many instances, how many threads.

Measured in ONNX Runtime in this process, in a few seconds. What follows from the figures is decided by `choose`, which knows no clock.
"""

import statistics
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from sightline.batches import Pixels, Predict
from sightline.card import ModelCard
from sightline.repository.instances import InstanceSettings
from sightline.repository.report import ShapeReport
from sightline_export.graph.runtimes import in_onnx_runtime

ROUNDS: Final = 3
SHORTEST_S: Final = 0.02
"""A turn runs a model as often as fills this time."""
LONGEST_RUN_S: Final = 1.0
"""Batches whose single run takes longer are not tried, and no larger ones either."""
LARGEST_RUN: Final = 64
WORTH: Final = 1.05
"""A larger run, more instances or more threads must bring so much: each costs memory, and the first two latency."""
THREADS_WORTH: Final = 1.25
"""Threads of one instance must bring so many times as much as instances: those are processes on a server, and here threads of one Python
that wait for one another, so that they bring more there than is measured."""
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
UNDISTURBED: Final = 0.8
"""Share of the cores that a turn must have had to say anything of instances and threads."""


def choose(figures: ShapeReport, model_bytes: int, flop: int) -> InstanceSettings:
    """Choose from what was measured; `flop` decides between instances and threads where the machine was too busy to measure them."""
    rates = {run.images: run.images_per_s for run in figures.runs}
    size = best_run(rates)
    settings = _spread(figures, rates[size], model_bytes, flop)
    alone_is_best = size == 1 and rates[1] < SLOW_PER_S
    return replace(settings, largest_run=size, queue_delay_us=None if alone_is_best else settings.queue_delay_us)


def best_run(rates: Mapping[int, float]) -> int:
    """Return the smallest size of run that no larger one beats by WORTH."""
    return min(size for size, rate in rates.items() if rate * WORTH >= max(rates.values()))


def _spread(figures: ShapeReport, alone: float, model_bytes: int, flop: int) -> InstanceSettings:
    one_thread, all_threads = InstanceSettings(instances=1, threads=1), InstanceSettings(instances=1, threads=0)
    if figures.cores == 1 or alone >= CARRIED_PER_S:
        return one_thread
    copies = min(figures.cores, MOST_INSTANCES)
    several = InstanceSettings(instances=copies, threads=figures.cores // copies)
    if model_bytes >= HEAVY_BYTES:
        return all_threads
    if figures.instances is None or figures.threads is None:
        return several if flop < LARGE_FLOP else all_threads
    if max(figures.instances, figures.threads) < alone * WORTH:
        return one_thread
    return several if figures.threads < figures.instances * THREADS_WORTH else all_threads


def measure(model: bytes, card: ModelCard, pixels: Pixels, cores: int) -> ShapeReport:
    """Measure the serialised ONNX `model` on `cores` cores with uint8 `pixels` [N, H, W, C]."""

    def batch(size: int) -> Pixels:
        return np.ascontiguousarray(pixels[np.arange(size) % len(pixels)])

    one = in_onnx_runtime(model, card, threads=1)
    # The best of the turns: whatever else a machine does makes a run slower, in its own core's time too.
    rates = {size: max(turn.of_core for turn in turns) for size, turns in _in_turn(_sizes(one, batch, card)).items()}
    runs = [{"images": size, "images_per_s": round(rate, 1)} for size, rate in rates.items()]
    size = best_run(rates)
    spread: dict[str, float | None] = {"instances": None, "threads": None}
    if cores > 1 and rates[size] < CARRIED_PER_S and len(model) < HEAVY_BYTES:
        copies = min(cores, MOST_INSTANCES)
        several = [in_onnx_runtime(model, card, threads=cores // copies) for _ in range(copies)]
        wide = in_onnx_runtime(model, card, threads=cores)
        turns = _in_turn({0: _Instances(several, batch(size), cores // copies), 1: _Instances([wide], batch(size), cores)})
        spread = {name: _median([turn.of_wall for turn in turns[at]]) for at, name in enumerate(spread)}
    return ShapeReport.model_validate({"cores": cores, "runs": runs, **spread})


def _sizes(predict: Predict, batch: Callable[[int], Pixels], card: ModelCard) -> "dict[int, _Instances]":
    """Powers of two up to the last whose run does not take too long, and the largest itself."""
    largest = min(LARGEST_RUN, card.max_batch_size)
    tried: dict[int, _Instances] = {}
    for size in sorted({*(1 << power for power in range(largest.bit_length())), largest}):
        predict(batch(size))  # allocates
        began_s = time.perf_counter()
        predict(batch(size))
        if tried and time.perf_counter() - began_s > LONGEST_RUN_S:
            break
        tried[size] = _Instances([predict], batch(size), 1)
    return tried


@dataclass(frozen=True)
class _Turn:
    """Images/s of one turn."""

    of_core: float
    """By the processor's time: what others do on the machine meanwhile takes nothing from it."""
    of_wall: float | None
    """By the clock; None where others had the cores."""


@dataclass(frozen=True)
class _Instances:
    """Instances that run at the same time, each with the same batch."""

    predicts: Sequence[Predict]
    pixels: Pixels
    threads: int
    """Of each."""

    def turn(self) -> _Turn:
        """Run all of them for a moment."""
        done = [0] * len(self.predicts)
        cpu_s, began_s = time.process_time(), time.perf_counter()
        until_s = began_s + SHORTEST_S

        def run(place: int) -> None:
            while time.perf_counter() < until_s or not done[place]:
                self.predicts[place](self.pixels)
                done[place] += len(self.pixels)

        others = [threading.Thread(target=run, args=(place,)) for place in range(1, len(self.predicts))]
        for other in others:
            other.start()
        run(0)
        for other in others:
            other.join()
        wall_s, cpu_s = time.perf_counter() - began_s, time.process_time() - cpu_s
        undisturbed = cpu_s >= UNDISTURBED * wall_s * len(self.predicts) * self.threads
        return _Turn(sum(done) / max(cpu_s, 1e-6), sum(done) / wall_s if undisturbed else None)


def _in_turn(candidates: Mapping[int, _Instances]) -> dict[int, list[_Turn]]:
    """Let each have its turn, ROUNDS times after one that does not count."""
    turns: dict[int, list[_Turn]] = {name: [] for name in candidates}
    for number in range(ROUNDS + 1):
        for name, candidate in candidates.items():
            turn = candidate.turn()
            if number:
                turns[name].append(turn)
    return turns


def _median(rates: Sequence[float | None]) -> float | None:
    """Return the median of what could be measured; None if that is less than half."""
    known = [rate for rate in rates if rate is not None]
    return statistics.median(known) if 2 * len(known) >= len(rates) else None
