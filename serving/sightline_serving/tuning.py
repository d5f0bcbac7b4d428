"""Finds how a model is best spread over this machine: Triton serves it with each setting, and perf_analyzer measures on real images.

Only the model itself is served meanwhile; the repository changes once, at the end, if somebody asks for it.
"""

import math
import os
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from sightline.bench import BenchSettings, Measurement, bench
from sightline.errors import UsageError
from sightline.image import ImageInput
from sightline.repository.edit import editable
from sightline.repository.instances import InstanceSettings, instances_of, with_instances
from sightline.repository.read import model_named
from sightline_serving.selection.plan_selection import Replacement
from sightline_serving.selection.preflight import Selection, select_versions
from sightline_serving.server import start_selection
from sightline_serving.settings import FREE_PORTS

ROUNDS: Final = 3
"""Each setting is measured in so many rounds, all settings in turn: a machine's busy minute then falls on all of them."""

WORTH: Final = 1.05
"""A setting replaces the present one if it answers at least so many times as many images in every round: less is noise."""

DELAYS_US: Final = (100, 500)
"""Tried for the fastest setting: waiting for company costs a lone request that long, and fills batches."""


@dataclass(frozen=True, kw_only=True)
class TuneSettings:
    """How a model is measured, and what it must keep to."""

    concurrency: int = 16
    """Requests of one image under way at a time."""
    window_s: float = 1.0
    """Of each of the three windows of a measurement."""
    p99_ms: float | None = None
    """The largest 99th percentile of latency that is allowed; None allows any."""

    def __post_init__(self) -> None:
        """Raise UsageError for what cannot be measured."""
        if self.concurrency < 1 or not self.window_s > 0 or not (self.p99_ms is None or self.p99_ms > 0):
            raise UsageError("concurrency, window and 99th percentile must be positive")


@dataclass(frozen=True)
class Trial:
    """One setting and how it did: medians over the rounds."""

    instances: InstanceSettings
    images_per_s: float
    p99_ms: float
    """99th percentile of latency."""
    ratio: float
    """Of its images/s to those of the present setting in the same round."""
    least_ratio: float
    """The same in the round that was worst for it."""


@dataclass(frozen=True)
class TuneResult:
    """All trials, the present setting first, and the one to keep."""

    trials: tuple[Trial, ...]
    best: Trial

    @property
    def present(self) -> Trial:
        """The trial of the setting that the model had."""
        return self.trials[0]


def tune(
    repository: Path,
    name: str,
    images: Sequence[ImageInput],
    settings: TuneSettings = TuneSettings(),
    notify: Callable[[str], None] = lambda _sentence: None,
) -> TuneResult:
    """Measure the model `name` of `repository` with several instance settings, over gRPC, ROUNDS times each.

    The best one has the most images/s among those whose 99th percentile is allowed; the present one stays, if it keeps to that, unless
    another is WORTH it. Raises RepositoryError (no such model), ServerStartError, MissingExtra (no perf_analyzer), and what
    `sightline.bench` raises.
    """
    model = model_named(repository, name)
    present = instances_of(editable(model))
    selection = select_versions({name: model})
    bench_settings = BenchSettings(concurrencies=(settings.concurrency,), window_s=settings.window_s)

    def measure(candidates: Sequence[InstanceSettings], reference: tuple[float, float] = (1.0, 1.0)) -> list[Trial]:
        """Compare `candidates` with the first of them, whose own ratios to the present setting are `reference`."""
        rows: dict[InstanceSettings, list[Measurement]] = {candidate: [] for candidate in candidates}
        for number in range(1, ROUNDS + 1):
            for candidate in candidates:
                notify(f"round {number} of {ROUNDS}: {candidate}")
                with _served(repository.resolve(), selection, candidate) as url:
                    rows[candidate] += bench(model.card, images, [url], bench_settings)
        first = [row.images_per_s for row in rows[candidates[0]]]
        return [_trial(candidate, measurements, first, reference) for candidate, measurements in rows.items()]

    trials = measure(candidates_on(len(os.sched_getaffinity(0)), present))
    best = _best(trials, settings.p99_ms)
    if model.card.max_batch_size > 1:
        # The best setting once more, beside itself with other delays: what was measured minutes ago was another machine.
        delayed = [replace(best.instances, queue_delay_us=delay_us) for delay_us in DELAYS_US if delay_us != best.instances.queue_delay_us]
        with_delay = measure([best.instances, *delayed], (best.ratio, best.least_ratio))[1:]
        trials += with_delay
        best = _best([best, *with_delay], settings.p99_ms)
    return TuneResult(tuple(trials), best)


def candidates_on(cores: int, present: InstanceSettings) -> list[InstanceSettings]:
    """Return the settings to try on `cores` cores, the present one first: from one instance on one core to all cores in use."""
    counts = sorted({1, 2, max(1, cores // 2), cores})
    pairs = [(instances, threads) for instances in counts for threads in counts if instances * threads <= max(cores, 2)]
    # 0 threads is one for every core: the same as so many.
    same = (present.instances, present.threads or cores)
    return [present, *(InstanceSettings(*pair, 0) for pair in pairs if pair != same or present.queue_delay_us != 0)]


def _trial(instances: InstanceSettings, rows: Sequence[Measurement], first: Sequence[float], reference: tuple[float, float]) -> Trial:
    ratios = [row.images_per_s / other if other else math.inf for row, other in zip(rows, first, strict=True)]
    rate, p99 = statistics.median(row.images_per_s for row in rows), statistics.median(row.p99_ms for row in rows)
    return Trial(instances, rate, p99, statistics.median(ratios) * reference[0], min(ratios) * reference[1])


def _best(trials: Sequence[Trial], p99_ms: float | None) -> Trial:
    """The first of `trials`, unless one that keeps to the limit is better; if none keeps to it, the one that comes nearest."""
    within = [trial for trial in trials if p99_ms is None or trial.p99_ms <= p99_ms]
    if not within:
        return min(trials, key=lambda trial: trial.p99_ms)
    fastest = max(within, key=lambda trial: trial.ratio)
    if trials[0] in within and fastest.least_ratio < WORTH * trials[0].least_ratio:
        return trials[0]
    return fastest


@contextmanager
def _served(repository: Path, selection: Selection, instances: InstanceSettings) -> Iterator[str]:
    """Serve the selected models with these settings until the block ends. Gives the address for gRPC."""
    folders = {name: replace(folder, config=with_instances(folder.config, instances)) for name, folder in selection.folders.items()}
    replacements = {name: Replacement(folder.config, {}) for name, folder in folders.items()}
    with start_selection(repository, replace(selection, folders=folders), FREE_PORTS, replacements) as server:
        yield server.grpc_url
