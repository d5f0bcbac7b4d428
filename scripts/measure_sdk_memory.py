"""Measures whether a long-lived classifier grows: memory over time for both clients and both protocols, with a straight line through it.

    python scripts/measure_sdk_memory.py MODEL  [--grpc-url grpc://localhost:8001] [--http-url http://localhost:8000] [--seconds 150]

Each of the four runs in a process of its own, which asks all the while: 4 threads or 16 tasks, single images and streams by turns. Its
resident memory (RSS) is read twice a second from /proc. The first fifth of the time is left out of the line, when libraries still
allocate. The interval is that of ordinary least squares; samples that follow one another are not independent, so it is narrower than the
truth.
"""

import argparse
import asyncio
import multiprocessing
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from sightline import AsyncClassifier, Classifier
from sightline.console import results, table

PERIOD_S: Final = 0.5
LEFT_OUT: Final = 0.2
"""Share of the time, at its beginning."""
THREADS: Final = 4
TASKS: Final = 16
Z_95: Final = 1.96
MB: Final = 1e6


@dataclass(frozen=True)
class Growth:
    """What one client's process did."""

    images: int
    seconds: float
    first_mb: float
    last_mb: float
    slope_mb_per_hour: float
    interval_mb_per_hour: float
    """Half of its 95 % interval."""


def rss_bytes() -> int:
    """Return the resident memory of this process."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def fitted(times_s: npt.NDArray[np.float64], memory_mb: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Return the slope of the least-squares line in MB an hour, and half of its 95 % interval."""
    centred_h = (times_s - times_s.mean()) / 3600
    slope = float(centred_h @ memory_mb / (centred_h @ centred_h))
    rest = memory_mb - memory_mb.mean() - slope * centred_h
    return slope, Z_95 * float(np.sqrt(rest @ rest / max(1, len(rest) - 2) / (centred_h @ centred_h)))


def watched(work: Callable[[float], int], seconds: float) -> Growth:
    """Run `work` until its end, given as a time of the monotonic clock, and watch the memory meanwhile."""
    began_s = time.monotonic()
    samples: list[tuple[float, float]] = []
    done = threading.Event()

    def watch() -> None:
        while not done.wait(PERIOD_S):
            samples.append((time.monotonic() - began_s, rss_bytes() / MB))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        images = work(began_s + seconds)
    finally:
        done.set()
        watcher.join()
    kept = np.array([sample for sample in samples if sample[0] >= LEFT_OUT * seconds])
    slope, interval = fitted(kept[:, 0], kept[:, 1])
    return Growth(images, seconds, float(kept[0, 1]), float(kept[-1, 1]), slope, interval)


def photos() -> list[npt.NDArray[np.uint8]]:
    """Return images that have to be reformatted, of several sizes."""
    random = np.random.default_rng(0)
    return [random.integers(0, 256, (side, side + 7, 3), dtype=np.uint8) for side in (20, 64, 130, 224)] * 4


def blocking(model: str, url: str, seconds: float) -> Growth:
    """Ask with `Classifier` from some threads."""
    images = photos()

    def work(end_s: float) -> int:
        counts = [0] * THREADS
        with Classifier(model, url, timeout_s=60) as classifier:

            def ask(number: int) -> None:
                while time.monotonic() < end_s:
                    counts[number] += len(classifier.classify(images[number]))
                    counts[number] += sum(1 for _ in classifier.stream(images))

            threads = [threading.Thread(target=ask, args=(number,)) for number in range(THREADS)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        return sum(counts)

    return watched(work, seconds)


def awaited(model: str, url: str, seconds: float) -> Growth:
    """Ask with `AsyncClassifier` from some tasks."""
    images = photos()

    async def ask_all(end_s: float) -> int:
        async with AsyncClassifier(model, url, timeout_s=60) as classifier:

            async def ask(number: int) -> int:
                count = 0
                while time.monotonic() < end_s:
                    count += len(await classifier.classify(images[number % len(images)]))
                    async for _ in classifier.stream(images):
                        count += 1
                return count

            return sum(await asyncio.gather(*map(ask, range(TASKS))))

    return watched(lambda end_s: asyncio.run(ask_all(end_s)), seconds)


CLIENTS: Final = {"Classifier": blocking, "AsyncClassifier": awaited}


def main() -> None:
    """Print a row for each client and protocol."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--grpc-url", default="grpc://localhost:8001")
    parser.add_argument("--http-url", default="http://localhost:8000")
    parser.add_argument("--seconds", type=float, default=150.0, help="of each of the four runs")
    chosen = parser.parse_args()
    rows = table("client", "protocol", "seconds", "images", "RSS first MB", "last MB", "MB/hour", "±", left=2)
    for name, client in CLIENTS.items():
        for url in (chosen.grpc_url, chosen.http_url):
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                growth = pool.apply(client, (chosen.model, url, chosen.seconds))
            rows.add_row(
                name,
                url.partition(":")[0],
                f"{growth.seconds:.0f}",
                f"{growth.images:,}",
                f"{growth.first_mb:.1f}",
                f"{growth.last_mb:.1f}",
                f"{growth.slope_mb_per_hour:+.1f}",
                f"{growth.interval_mb_per_hour:.1f}",
            )
    results().print(rows)


if __name__ == "__main__":
    main()
