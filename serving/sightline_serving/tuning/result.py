"""What a search found: a trial for each candidate, with all its rounds, and the one to keep."""

import statistics
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Literal

from pydantic_core import to_json

from sightline_serving.tuning.candidates import Candidate
from sightline_serving.tuning.ratios import Interval, geometric_mean, median_interval


@dataclass(frozen=True)
class Round:
    """A candidate and the present setting, measured right after each other: a figure for each concurrency."""

    images_per_s: tuple[float, ...]
    present_images_per_s: tuple[float, ...]
    p99_ms: tuple[float, ...]
    """99th percentiles of latency."""

    @property
    def ratios(self) -> tuple[float, ...]:
        """Of the candidate's images/s to those of the present setting, at each concurrency."""
        pairs = zip(self.images_per_s, self.present_images_per_s, strict=True)
        return tuple(rate / present if present else float("inf") for rate, present in pairs)

    @property
    def ratio(self) -> float:
        """The geometric mean of `ratios`."""
        return geometric_mean(self.ratios)


@dataclass(frozen=True)
class Trial:
    """A candidate and how it did. Its figures are medians over the rounds, those of the final ones where it came so far."""

    candidate: Candidate
    rounds: tuple[Round, ...]
    final: bool
    """Whether the rounds are the final ones, which had no part in choosing who comes so far."""
    memory_mib: float
    """Of its server's processes, after the rounds (PSS)."""

    @cached_property
    def images_per_s(self) -> tuple[float, ...]:
        """At each concurrency."""
        return tuple(map(statistics.median, zip(*(each.images_per_s for each in self.rounds), strict=True)))

    @cached_property
    def p99_ms(self) -> float:
        """The 99th percentile of latency at the concurrency where it is largest."""
        return max(float(statistics.median(column)) for column in zip(*(each.p99_ms for each in self.rounds), strict=True))

    @cached_property
    def ratios(self) -> tuple[float, ...]:
        """To the present setting, at each concurrency."""
        return tuple(map(statistics.median, zip(*(each.ratios for each in self.rounds), strict=True)))

    @cached_property
    def ratio(self) -> float:
        """To the present setting, over all concurrencies."""
        return statistics.median(each.ratio for each in self.rounds)

    @cached_property
    def interval(self) -> Interval | None:
        """Of `ratio`, 95 %; None where there were too few rounds to say."""
        return median_interval([each.ratio for each in self.rounds])

    def interval_at(self, index: int) -> Interval | None:
        """Return the interval of the ratio at one concurrency."""
        return median_interval([each.ratios[index] for each in self.rounds])


@dataclass(frozen=True)
class TuneResult:
    """All trials, the present setting first, and the one to keep."""

    model: str
    cores: int
    concurrencies: tuple[int, ...]
    trials: tuple[Trial, ...]
    best: Trial

    @property
    def present(self) -> Trial:
        """The trial of the setting that the model had."""
        return self.trials[0]


@dataclass(frozen=True)
class TuneDocument:
    """A search for scripts: `sightline tune --json`."""

    schema: Literal[1]
    measured_at: str
    """ISO 8601, UTC."""
    model: str
    cores: int
    processor: str
    concurrencies: tuple[int, ...]
    window_s: float
    exhaustive: bool
    trials: tuple[dict[str, object], ...]


def document(result: TuneResult, measured_at: str, processor: str, window_s: float, *, exhaustive: bool) -> str:
    """Return the search as a JSON document, with every round."""
    trials = tuple(
        {
            **asdict(trial.candidate),
            "setting": str(trial.candidate),
            "present": trial == result.present,
            "best": trial == result.best,
            "final": trial.final,
            "ratio": trial.ratio,
            "interval_95": trial.interval,
            "ratios": trial.ratios,
            "intervals_95": [trial.interval_at(index) for index in range(len(result.concurrencies))],
            "images_per_s": trial.images_per_s,
            "p99_ms": trial.p99_ms,
            "memory_mib": trial.memory_mib,
            "rounds": [asdict(each) for each in trial.rounds],
        }
        for trial in result.trials
    )
    written = TuneDocument(1, measured_at, result.model, result.cores, processor, result.concurrencies, window_s, exhaustive, trials)
    return to_json(written, indent=1, inf_nan_mode="null").decode() + "\n"
