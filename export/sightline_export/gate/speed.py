"""How fast two ONNX files of the same model are in this process, side by side: seconds alone say more of the machine than of the model."""

import statistics
import time
from collections.abc import Mapping
from typing import Final

import numpy as np

from sightline.batches import Pixels, Predict
from sightline.card import ModelCard
from sightline_export.graph.runtimes import in_onnx_runtime

ROUNDS: Final = 7
SHORTEST_S: Final = 0.05
"""A model's turn asks as often as fills this time."""
LARGEST_BATCH: Final = 32


def side_by_side(models: Mapping[str, bytes], card: ModelCard, pixels: Pixels, threads: int) -> list[dict[str, object]]:
    """Return images per second of each of `models` (name → serialised ONNX), in ONNX Runtime on the CPU with `threads` threads (0: all).

    One row for single images and one for batches of up to LARGEST_BATCH. The models take turns, ROUNDS times; the figures are medians of
    the turns, the ratios medians of the ratios within a turn, to the first of `models`.
    """
    predicts = {name: in_onnx_runtime(model, card, threads) for name, model in models.items()}
    return [
        _row(predicts, np.ascontiguousarray(pixels[np.arange(size) % len(pixels)]), threads)
        for size in dict.fromkeys((1, min(LARGEST_BATCH, card.max_batch_size)))
    ]


def _row(predicts: Mapping[str, Predict], batch: Pixels, threads: int) -> dict[str, object]:
    first = next(iter(predicts))
    repeats = {name: _repeats(predict, batch) for name, predict in predicts.items()}
    turns: list[dict[str, float]] = []
    for _ in range(ROUNDS):
        rates = {}
        for name, predict in predicts.items():
            start_s = time.perf_counter()
            for _ in range(repeats[name]):
                predict(batch)
            rates[name] = len(batch) * repeats[name] / (time.perf_counter() - start_s)
        turns.append(rates)
    return {
        "batch": len(batch),
        "threads": threads,
        "pictures_per_second": {name: round(statistics.median(turn[name] for turn in turns), 1) for name in predicts},
        "ratio": {name: round(statistics.median(turn[name] / turn[first] for turn in turns), 2) for name in predicts if name != first},
    }


def _repeats(predict: Predict, batch: Pixels) -> int:
    """Return how often one turn asks; the first call warms the session up."""
    predict(batch)
    start_s = time.perf_counter()
    predict(batch)
    return max(1, min(1000, int(SHORTEST_S / max(1e-6, time.perf_counter() - start_s))))
