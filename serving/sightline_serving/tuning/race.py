"""Decides which candidates are worth more rounds, and which one is kept: values in, values out; who measures is a function.

Hopeless candidates are dropped after one round, half-hearted ones after three more. Those that are left meet in final rounds, and these
alone decide: whoever was first among many had luck too, and the rounds by which it came so far would flatter it.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from sightline_serving.tuning.candidates import Candidate, delayed
from sightline_serving.tuning.result import Trial

FIRST_ROUNDS, MORE_ROUNDS, FINAL_ROUNDS = 1, 3, 9
"""Of nine rounds the 2nd and the 8th bound the median with 96 % confidence, so that one round may be disturbed."""
EXHAUSTIVE_ROUNDS: Final = 3
"""Of every candidate in an exhaustive search, before the final ones."""
KEPT_AFTER_FIRST: Final = 6
FINALISTS: Final = 2
WORTH: Final = 1.02
"""A candidate replaces the present setting if the lower bound of its ratio is above this: what is gained must be worth a change."""
LEAST: Final = 0.95
"""And if it keeps this share of the images/s at every concurrency: nobody's traffic pays for somebody else's."""

Measure = Callable[[Sequence[Candidate], int, bool], list[Trial]]
"""Candidates, rounds, whether these are the final ones → the present setting's trial in these rounds, and one for each candidate."""


@dataclass(frozen=True)
class Stage:
    """So many candidates, measured in so many rounds."""

    candidates: int
    rounds: int
    final: bool = False


def stages(first: int, concurrencies: int, delays: int, *, exhaustive: bool) -> list[Stage]:
    """Return what a search with so many `first` candidates measures at most."""
    if exhaustive:
        return [Stage(first, EXHAUSTIVE_ROUNDS), Stage(min(first, FINALISTS + concurrencies), FINAL_ROUNDS, final=True)]
    more = min(first, KEPT_AFTER_FIRST)
    return [
        Stage(first, FIRST_ROUNDS),
        Stage(more, MORE_ROUNDS),
        Stage(delays, MORE_ROUNDS),
        Stage(min(more, FINALISTS), FINAL_ROUNDS, final=True),
    ]


def search(
    measure: Measure, present: Candidate, first: Sequence[Candidate], cores: int, p99_ms: float | None, *, exhaustive: bool
) -> tuple[list[Trial], Trial]:
    """Return the trials, that of the present setting first, and the best."""
    trials: dict[Candidate, Trial] = {}

    def measured(candidates: Sequence[Candidate], rounds: int, *, final: bool = False) -> list[Trial]:
        tried = measure(candidates, rounds, final) if candidates or final else []
        trials.update((trial.candidate, trial) for trial in tried)
        return [trial for trial in tried if trial.candidate != present]

    if exhaustive:
        everything = measured(first, EXHAUSTIVE_ROUNDS)
        finalists = [trial.candidate for trial in _leaders(everything, p99_ms)]
    else:
        once = measured(first, FIRST_ROUNDS)
        often = measured([trial.candidate for trial in _ranked(once, p99_ms)[:KEPT_AFTER_FIRST]], MORE_ROUNDS)
        leaders = [trial.candidate for trial in _ranked(often, p99_ms)[:FINALISTS]]
        # Waiting for company is tried for the leader alone: elsewhere it could only be a little less bad.
        often += measured(delayed(leaders[:1], present, cores), MORE_ROUNDS)
        finalists = [trial.candidate for trial in _ranked(often, p99_ms)[:FINALISTS]]
    decided = measured(finalists, FINAL_ROUNDS, final=True)
    now = trials.pop(present)
    ranked = sorted(trials.values(), key=lambda trial: (not trial.final, -trial.ratio))
    return [now, *ranked], best_of(now, decided, p99_ms)


def best_of(present: Trial, others: Sequence[Trial], p99_ms: float | None) -> Trial:
    """The present setting, unless another is surely better; if none keeps to the limit of latency, the one that comes nearest."""
    within = [trial for trial in (present, *others) if p99_ms is None or trial.p99_ms <= p99_ms]
    if not within:
        return min((present, *others), key=lambda trial: trial.p99_ms)
    if present in within:
        return max(
            (trial for trial in within if trial is not present and surely_better(trial)), key=lambda trial: trial.ratio, default=present
        )
    return max(within, key=lambda trial: trial.ratio)


def surely_better(trial: Trial) -> bool:
    """Whether a candidate's gain is beyond noise, and no concurrency pays for it."""
    return trial.interval is not None and trial.interval[0] > WORTH and min(trial.ratios) >= LEAST


def _ranked(trials: Sequence[Trial], p99_ms: float | None) -> list[Trial]:
    """Best first: those that keep to the limit before the others, and among these the fastest; those beyond it by how far."""

    def key(trial: Trial) -> tuple[bool, float]:
        beyond = p99_ms is not None and trial.p99_ms > p99_ms
        return beyond, trial.p99_ms if beyond else -trial.ratio

    return sorted(trials, key=key)


def _leaders(trials: Sequence[Trial], p99_ms: float | None) -> Iterator[Trial]:
    """The best over all concurrencies, and the best at each, each once."""
    chosen = _ranked(trials, p99_ms)[:FINALISTS]
    for index in range(len(trials[0].ratios) if trials else 0):
        chosen.append(max(trials, key=lambda trial: trial.ratios[index]))
    yield from {trial.candidate: trial for trial in chosen}.values()
