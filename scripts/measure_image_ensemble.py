"""What it costs to let the server reformat: `<model>_image` against the Python client, side by side on the same files.

    python scripts/measure_image_ensemble.py MODEL FOLDER [--url grpc://localhost:8001] [--threads 1 --threads 8]

Both ways answer one image a request from files that are already in memory. They take turns; a ratio is the median of the ratios of the
turns. Client and server share this machine, so that the work of either is in every figure.
"""

import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice
from pathlib import Path
from typing import Final

import click
import numpy as np
import numpy.typing as npt

from sightline import Classifier
from sightline.console import results, table
from sightline.errors import UsageError
from sightline.in_triton import ENCODED, IMAGE
from sightline.scoring import images_below
from sightline.transport import connect

ROUNDS: Final = 7


@click.command()
@click.argument("model")
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--url", default="grpc://localhost:8001", show_default=True)
@click.option("--threads", type=click.IntRange(1, 256), multiple=True, default=(1, 8), show_default=True)
@click.option("--seconds", type=click.FloatRange(0.1, 60), default=2.0, show_default=True, help="Of each turn.")
def measure(model: str, folder: Path, url: str, threads: tuple[int, ...], seconds: float) -> None:
    """Measure MODEL on the images below FOLDER (256 at most)."""
    files = [path.read_bytes() for path in islice(images_below(folder), 256)]
    if not files:
        raise UsageError(f"{folder} holds no images")
    report = table("threads", "client reformats", "server reformats", "ratio", "", left=0)
    with Classifier(model, url) as classifier, connect(url) as transport:

        def by_client(content: bytes) -> npt.NDArray[np.float32]:
            return classifier.probabilities([content])

        def by_server(content: bytes) -> npt.NDArray[np.float32]:
            return transport.infer_encoded(model + IMAGE, "", ENCODED, [content], classifier.card.output).values

        apart = max(float(np.abs(by_client(content) - by_server(content)).max()) for content in files[:32])
        for count in threads:
            turns = [(rate(by_client, files, count, seconds), rate(by_server, files, count, seconds)) for _ in range(ROUNDS)]
            client, server = (statistics.median(turn[way] for turn in turns) for way in (0, 1))
            ratios = sorted(turn[1] / turn[0] for turn in turns)
            spread = f"{ratios[0]:.2f} to {ratios[-1]:.2f}"
            report.add_row(str(count), f"{client:,.0f}/s", f"{server:,.0f}/s", f"{statistics.median(ratios):.2f}", spread)
        pixels = int(np.prod(classifier.card.preprocess.shape))
    results().print(report)
    mean = statistics.mean(map(len, files))
    print(f"{len(files)} files of {mean:,.0f} bytes on average, {pixels:,} bytes of pixels each; max |Δp| {apart:.1e}")


def rate(ask: Callable[[bytes], npt.NDArray[np.float32]], files: list[bytes], threads: int, seconds: float) -> float:
    """Images per second that `threads` clients get answered."""

    def one(first: int) -> int:
        deadline_s = time.perf_counter() + seconds
        for done, content in enumerate(islice(cycle(files), first, None), 1):
            ask(content)
            if time.perf_counter() > deadline_s:
                return done
        raise AssertionError("a cycle has no end")

    began = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        count = sum(pool.map(one, range(threads)))
    return count / (time.perf_counter() - began)


if __name__ == "__main__":
    measure()
