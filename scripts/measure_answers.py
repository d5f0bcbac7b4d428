"""Measures how many images per second a running server answers, by size of request and number of callers.

    python scripts/measure_answers.py MODEL …  [--url grpc://localhost:8001]

Each row lasts some seconds after one request to warm up; the images are random pixels. It is how the figures of a GPU in
docs/benchmarks.md came about, where perf_analyzer is not at hand.
"""

import argparse
import threading
import time
from typing import Final

import numpy as np

from sightline import Classifier
from sightline.console import results, table

REQUESTS: Final = ((1, 1), (1, 16), (1, 32), (16, 4))
"""Images of a request, callers."""


def rate(classifier: Classifier, images: int, callers: int, seconds: float) -> float:
    """Return the images per second that so many callers are answered, each with requests of `images`."""
    pixels = np.random.default_rng(0).integers(0, 256, (images, *classifier.card.preprocess.shape), dtype=np.uint8)
    classifier.probabilities_of_pixels(pixels)
    answered = [0] * callers
    end_s = time.monotonic() + seconds

    def call(number: int) -> None:
        while time.monotonic() < end_s:
            classifier.probabilities_of_pixels(pixels)
            answered[number] += images

    threads = [threading.Thread(target=call, args=(number,)) for number in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(answered) / seconds


def main() -> None:
    """Print a row for each model and kind of request."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--url", default="grpc://localhost:8001")
    parser.add_argument("--seconds", type=float, default=4.0)
    chosen = parser.parse_args()
    rows = table("model", "images a request", "callers", "images/s")
    for model in chosen.models:
        with Classifier(model, chosen.url, timeout_s=120) as classifier:
            for images, callers in REQUESTS:
                rows.add_row(model, str(images), str(callers), f"{rate(classifier, images, callers, chosen.seconds):,.1f}")
    results().print(rows)


if __name__ == "__main__":
    main()
