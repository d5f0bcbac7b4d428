"""What is measured, and what a measurement says: values that every module of the benchmark shares."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from sightline.transport import Tls

WINDOWS: Final = 3
"""perf_analyzer averages this many. Its own rule is to go on until three in a row agree within 10 %, and to give no figure at all if
they never do, as on a shared machine; we always take three and show how far they lay apart."""

MOST_IMAGES: Final = 256
"""Enough that no cache remembers them all, and the file that perf_analyzer reads stays below 50 MB for 224 × 224 × 3."""

Check = Literal["", "every answer", "under load"]
"""How the answers were held to the expected ones: each of the measurement, to the bit, by perf_analyzer; or those to as many requests of
the same size right before and after it, within the tolerance. "" in results that were written before there was a check."""


@dataclass(frozen=True)
class Measurement:
    """How a server did at one concurrency and size of batch: one row. Latencies in milliseconds, as perf_analyzer's clients saw them."""

    protocol: str
    concurrency: int
    batch: int
    images_per_s: float
    mean_ms: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    queue_ms: float
    """Mean time that a request waited on the server for a batch to fill or an instance to be free."""
    compute_ms: float
    """Mean time in the model, with its copies in and out."""
    spread_percent: float
    """How far the windows' throughputs lie from their mean at most: on a noisy machine this is what a difference must exceed."""
    latency_spread_percent: float = 0.0
    """The same of the windows' mean latencies."""
    check: Check = ""
    checked: int = 0
    """Answers, each to one image, that were held to the expected ones in this row."""


@dataclass(frozen=True)
class BenchSettings:
    """What is measured, how, and for how long."""

    version: str = ""
    """Of the model; "" lets the server choose."""
    concurrencies: tuple[int, ...] = (1, 4, 16)
    """Requests under way at a time, one measurement for each."""
    batches: tuple[int, ...] = (1,)
    """Images in each request, one measurement for each, at each concurrency."""
    window_s: float = 2.0
    """Of each of the WINDOWS windows of a measurement."""
    timeout_s: float = 60.0
    """Of each call outside the measurements."""
    tls: Tls = field(default_factory=Tls)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Sent with every request. perf_analyzer takes them as arguments, which every user of this machine can read while it runs."""


DEFAULTS: Final = BenchSettings()


@dataclass(frozen=True)
class Load:
    """What is asked of a server at a time."""

    concurrency: int
    batch: int

    def __str__(self) -> str:
        """For people: `8 requests of 1 image under way`."""
        return f"{_several(self.concurrency, 'request')} of {_several(self.batch, 'image')} under way"


def _several(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"
