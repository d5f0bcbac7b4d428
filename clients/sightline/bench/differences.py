"""Holds one result to an older one, row by row, and says which differences are more than noise."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Final, Literal

from sightline.bench.document import BenchDocument
from sightline.bench.environment import Environment
from sightline.bench.settings import Measurement

FLOOR_PERCENT: Final = 5.0
"""Of throughput: what two runs on a quiet machine lie apart. The windows of one run share its conditions, so that their spread alone says
too little."""

P95_FLOOR_PERCENT: Final = 10.0
"""The same of a 95th percentile, which rests on a twentieth of the requests."""

IGNORED: Final = frozenset({"load", "url", "on_this_machine", "server_name"})
"""Of the environment: what differs from run to run and is no cause by itself."""

Verdict = Literal["better", "worse", "within noise"]


@dataclass(frozen=True)
class Difference:
    """One row of both results."""

    old: Measurement
    new: Measurement

    @property
    def rate_ratio(self) -> float:
        """Of the new images/s to the old: above 1 is faster."""
        return self.new.images_per_s / self.old.images_per_s if self.old.images_per_s else float("inf")

    @property
    def p95_ratio(self) -> float:
        """Of the new 95th percentile of latency to the old: above 1 is slower."""
        return self.new.p95_ms / self.old.p95_ms if self.old.p95_ms else float("inf")

    @property
    def rate_noise_percent(self) -> float:
        """What a difference in images/s must exceed: the spreads of both, or the floor."""
        return max(FLOOR_PERCENT, self.old.spread_percent + self.new.spread_percent)

    @property
    def p95_noise_percent(self) -> float:
        """The same for the 95th percentile, from the spreads of the mean latencies (of throughput in results that have none)."""
        spreads = (row.latency_spread_percent or row.spread_percent for row in (self.old, self.new))
        return max(P95_FLOOR_PERCENT, sum(spreads))

    @property
    def rate_verdict(self) -> Verdict:
        """Whether the new one answers more images in a second."""
        return _verdict(self.rate_ratio, self.rate_noise_percent)

    @property
    def p95_verdict(self) -> Verdict:
        """Whether the new one answers sooner."""
        return _verdict(1 / self.p95_ratio if self.p95_ratio else float("inf"), self.p95_noise_percent)


@dataclass(frozen=True)
class Comparison:
    """Two results side by side."""

    differences: tuple[Difference, ...]
    only_old: int
    """Rows of the old result that the new one does not have."""
    only_new: int
    environment: tuple[str, ...]
    """What of machine, versions and model is another one, a phrase each."""
    old_was_busy: bool = False
    """Whether the old result is from a machine that did other work."""


def compare(old: BenchDocument, new: BenchDocument) -> Comparison:
    """Compare rows of the same protocol, concurrency and batch; the order is that of the new result."""
    before = {_key(row): row for row in old.rows}
    shared = [Difference(before[_key(row)], row) for row in new.rows if _key(row) in before]
    return Comparison(
        differences=tuple(shared),
        only_old=len(before) - len(shared),
        only_new=len(new.rows) - len(shared),
        environment=tuple(_changes(old.environment, new.environment)),
        old_was_busy=old.environment is not None and old.environment.machine.was_busy,
    )


def _verdict(ratio: float, noise_percent: float) -> Verdict:
    """What a ratio says that is above 1 where the new result is better; the same factor counts in both directions."""
    factor = 1 + noise_percent / 100
    if ratio > factor:
        return "better"
    return "worse" if ratio < 1 / factor else "within noise"


def _key(row: Measurement) -> tuple[str, int, int]:
    return row.protocol, row.concurrency, row.batch


def _changes(old: Environment | None, new: Environment | None) -> Iterator[str]:
    if old is None or new is None:
        return
    before, after = dict(_flat(old)), dict(_flat(new))
    for name in [*before, *(name for name in after if name not in before)]:
        if before.get(name) != after.get(name):
            yield f"{name}: {before.get(name, 'none')} → {after.get(name, 'none')}"


def _flat(environment: Environment) -> Iterator[tuple[str, str]]:
    """Name and value of everything in an environment; of the servers the first one speaks for all."""
    parts = {**asdict(environment.machine), **environment.versions, **(asdict(environment.served[0]) if environment.served else {})}
    for name, value in parts.items():
        if name not in IGNORED:
            yield name.replace("_", " "), ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
