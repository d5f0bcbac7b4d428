"""Chooses how a model is served fast by what one core computes: instances, threads, batching, and how many images one run has.

A rule without measurement: `sightline export` measures the core and writes what it found into `report.json`; whoever serves on a machine
with other cores asks the same rule again (`sightline_serving.selection.fitting_cores`).
"""

from collections.abc import Mapping
from typing import Final

from sightline.repository.instances import InstanceSettings
from sightline.repository.report import ShapeReport

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
    # While one instance alone works, the others' cores lie idle.
    lone_threads = 0 if instances > 1 else None
    return InstanceSettings(instances, threads, delay_us, size, lone_threads)


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
