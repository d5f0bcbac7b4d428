"""How fast two ONNX files of the same model are in this process, side by side: seconds alone say more of the machine than of the model."""

import statistics
import time
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from sightline.card import ModelCard
from sightline_export.gate.compare import Pixels, in_onnx_runtime

ROUNDS: Final = 7
SHORTEST_S: Final = 0.05
"""A turn asks as often as fills this time."""
LARGEST_BATCH: Final = 32


def side_by_side(models: Mapping[str, bytes], card: ModelCard, pixels: Pixels, threads: int) -> list[dict[str, Any]]:
    """Images per second of each of `models` (name → serialised ONNX), in ONNX Runtime on the CPU with `threads` threads (0: all).

    In single images and in batches of up to LARGEST_BATCH. The models take turns, ROUNDS times; the figures are medians of the turns,
    the ratios medians of the ratios within a turn, to the first of `models`.
    """
    asks = {name: in_onnx_runtime(model, card, threads) for name, model in models.items()}
    first = next(iter(models))
    rows = []
    for size in dict.fromkeys((1, min(LARGEST_BATCH, card.max_batch_size))):
        batch = np.ascontiguousarray(pixels[np.arange(size) % len(pixels)])
        repeats = {name: _repeats(ask, batch) for name, ask in asks.items()}
        turns: list[dict[str, float]] = []
        for _ in range(ROUNDS):
            turn = {}
            for name, ask in asks.items():
                began = time.perf_counter()
                for _ in range(repeats[name]):
                    ask(batch)
                turn[name] = size * repeats[name] / (time.perf_counter() - began)
            turns.append(turn)
        rows.append(
            {
                "batch": size,
                "threads": threads,
                "pictures_per_second": {name: round(statistics.median(turn[name] for turn in turns), 1) for name in asks},
                "ratio": {name: round(statistics.median(turn[name] / turn[first] for turn in turns), 2) for name in asks if name != first},
            }
        )
    return rows


def _repeats(ask: Any, batch: Pixels) -> int:
    """How often one turn asks; asking once before warms the session up."""
    ask(batch)
    began = time.perf_counter()
    ask(batch)
    return max(1, min(1000, int(SHORTEST_S / max(1e-6, time.perf_counter() - began))))
