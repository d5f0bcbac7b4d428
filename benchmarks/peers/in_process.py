"""The limit: how many images/s ONNX Runtime computes without any server, in the best of a few shapes.

    python benchmarks/peers/in_process.py MODEL.onnx PIXELS.npy --concurrency 8 --seconds 1

Each shape is so many sessions in threads of their own, so many threads in each, and so many images a run; sessions times images is at
most the concurrency, since no server could have more at hand. It runs in a process of its own and prints images/s of each shape as JSON.
"""

import itertools
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt

from sightline.host.cpu import usable_cores


@dataclass(frozen=True)
class Limit:
    """The fastest shape at a concurrency."""

    images_per_s: float
    shape: str


@dataclass(frozen=True)
class InProcessShape:
    """Sessions that compute side by side."""

    sessions: int
    threads: int
    batch: int

    def __str__(self) -> str:
        """As the table shows it."""
        return f"{self.sessions} × {self.threads} thread{'s' * (self.threads != 1)}, {self.batch} image{'s' * (self.batch != 1)}"

    @property
    def concurrency(self) -> int:
        """How many images are under way."""
        return self.sessions * self.batch


def shapes_for(concurrencies: Sequence[int], largest_batch: int, cores: int) -> list[InProcessShape]:
    """Return the shapes that are worth trying, each once."""
    pairs = dict.fromkeys([(1, 1), (1, cores), (cores, 1)] if 1 in concurrencies else [(1, cores), (cores, 1)])
    shapes = []
    for concurrency, (sessions, threads) in itertools.product(concurrencies, pairs):
        for batch in (1, min(largest_batch, concurrency // sessions)):
            shape = InProcessShape(sessions, threads, batch)
            if batch and shape not in shapes and (batch == 1 or sessions * threads == cores):
                shapes.append(shape)
    return shapes


def limits(rates: dict[InProcessShape, float], concurrencies: Sequence[int]) -> dict[int, Limit]:
    """Return the fastest shape at each concurrency, among those that have no more images under way."""
    best = {}
    for concurrency in concurrencies:
        fitting = {shape: rate for shape, rate in rates.items() if shape.concurrency <= concurrency}
        if fitting:
            shape = max(fitting, key=lambda each: fitting[each])
            best[concurrency] = Limit(fitting[shape], str(shape))
    return best


def measure(onnx: Path, pixels: Path, concurrencies: Sequence[int], largest_batch: int, seconds: float) -> dict[int, Limit]:
    """Measure in another process. Raises RuntimeError with its last words if it fails."""
    command = [sys.executable, __file__, str(onnx), str(pixels), "--seconds", str(seconds), "--largest-batch", str(largest_batch)]
    for concurrency in concurrencies:
        command += ["--concurrency", str(concurrency)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    if done.returncode:
        raise RuntimeError(f"ONNX Runtime in process: {' '.join(done.stderr.split())[-300:]}")
    rates = {InProcessShape(*shape): rate for *shape, rate in json.loads(done.stdout)}
    return limits(rates, concurrencies)


@click.command()
@click.argument("onnx", type=click.Path(exists=True, path_type=Path))
@click.argument("pixels", type=click.Path(exists=True, path_type=Path))
@click.option("--concurrency", "concurrencies", type=click.IntRange(1), multiple=True, default=(1, 8, 32))
@click.option("--largest-batch", type=click.IntRange(1), default=32)
@click.option("--seconds", type=click.FloatRange(0.05), default=1.0)
def main(onnx: Path, pixels: Path, concurrencies: tuple[int, ...], largest_batch: int, seconds: float) -> None:
    """Print [sessions, threads, images a run, images/s] for each shape."""
    images = np.load(pixels, allow_pickle=False)
    rows = [
        [shape.sessions, shape.threads, shape.batch, _images_per_s(onnx, images, shape, seconds)]
        for shape in shapes_for(concurrencies, largest_batch, usable_cores())
    ]
    click.echo(json.dumps(rows))


def _images_per_s(onnx: Path, images: npt.NDArray[np.uint8], shape: InProcessShape, seconds: float) -> float:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = shape.threads
    sessions = [onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"]) for _ in range(shape.sessions)]
    batches = list(_batches(images, shape.batch))
    ready, ended = threading.Barrier(shape.sessions + 1), threading.Event()
    runs: list[tuple[int, float]] = []

    def compute(session: "onnxruntime.InferenceSession") -> None:
        name = session.get_inputs()[0].name
        for batch in batches[:1]:
            session.run(None, {name: batch})
        ready.wait()
        count, began_s = 0, time.perf_counter()
        for batch in itertools.cycle(batches):
            session.run(None, {name: batch})
            count += 1
            if ended.is_set():
                break
        runs.append((count, time.perf_counter() - began_s))

    threads = [threading.Thread(target=compute, args=(session,)) for session in sessions]
    for thread in threads:
        thread.start()
    ready.wait()
    time.sleep(seconds)
    ended.set()
    for thread in threads:
        thread.join()
    return sum(count * shape.batch / spent_s for count, spent_s in runs)


def _batches(images: npt.NDArray[np.uint8], batch: int) -> Iterator[npt.NDArray[np.uint8]]:
    """The images in batches, each from another one on."""
    for first in range(len(images)):
        yield np.ascontiguousarray(np.stack([images[(first + number) % len(images)] for number in range(batch)]))


if __name__ == "__main__":
    main()
