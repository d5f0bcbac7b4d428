"""What served models hold in memory: the share of each process in the machine's memory (PSS), at rest and after many clients asked.

    python scripts/measure_memory.py REPOSITORY [--clients 32] [--seconds 4]

The server is started over the whole repository. Then each model is asked, one image a request, and memory is read once more. PSS counts
what several processes share once in all (Linux, /proc/PID/smaps_rollup).
"""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import click
import numpy as np

from sightline import Classifier
from sightline.console import results, table
from sightline_serving.process.memory import count, held, mib
from sightline_serving.server import Server, start_server
from sightline_serving.settings import FREE_PORTS

TIMEOUT_S: Final = 300.0
"""Thirty-two requests to a large network wait for each other."""
SETTLE_S: Final = 3.0
"""Between the last answer and the reading."""


@click.command()
@click.argument("repository", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--clients", type=click.IntRange(1, 256), default=32, show_default=True, help="Threads that ask at the same time.")
@click.option("--seconds", type=click.FloatRange(0.1), default=4.0, show_default=True, help="For each model.")
def measure(repository: Path, clients: int, seconds: float) -> None:
    """Measure the models of REPOSITORY."""
    models = sorted(path.parent.name for path in repository.glob("*/card.json"))
    began_s = time.perf_counter()
    with start_server(repository, FREE_PORTS) as server:
        started_s = time.perf_counter() - began_s
        time.sleep(SETTLE_S)
        at_rest = held(server.pid, models)
        for model in models:
            ask(server, model, clients, seconds)
        time.sleep(SETTLE_S)
        after = held(server.pid, models)
    rows = table("", "processes", "at rest, MiB", f"after {clients} clients, MiB", left=1)
    for who in (*at_rest, "all"):
        rows.add_row(who, *(f"{value:,}" for value in (count(at_rest, who), mib(at_rest, who), mib(after, who))))
    results().print(rows)
    results().print(f"ready after {started_s:.1f} s")


def ask(server: Server, model: str, clients: int, seconds: float) -> None:
    """Let many clients ask about one image a request."""
    with Classifier(model, server.grpc_url, timeout_s=TIMEOUT_S) as classifier, ThreadPoolExecutor(clients) as pool:
        shape = classifier.card.preprocess.shape
        pixels = np.random.default_rng(0).integers(0, 256, (clients, 1, *shape), dtype=np.uint8)
        until_s = time.monotonic() + seconds

        def asked(image: int) -> None:
            while time.monotonic() < until_s:
                classifier.probabilities_of_pixels(pixels[image])

        list(pool.map(asked, range(clients)))


if __name__ == "__main__":
    measure()
