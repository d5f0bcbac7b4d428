"""What is tried: instances × threads, whether and how long requests wait for each other, images a run, processes that reformat."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from sightline.repository.instances import InstanceSettings

RUNS: Final = (1, 4, 16, 0)
"""Images that the network computes at once; 0 is a whole batch."""
DELAYS_US: Final = (100, 500)
"""Waiting for company costs a lone request that long, and fills batches."""
MOST_REFORMATS: Final = 4


@dataclass(frozen=True)
class Candidate:
    """One way to serve a model."""

    instances: InstanceSettings
    reformats: int | None = None
    """Processes that reformat what is sent to `<model>_image`; None where pixels are sent to the model itself."""

    def __str__(self) -> str:
        """For people: `2 instances of 1 thread, delay 0 µs, 4 images a run`."""
        if self.reformats is None:
            return str(self.instances)
        return f"{self.instances}; {self.reformats} process{'es' * (self.reformats > 1)} reformat{'s' * (self.reformats == 1)}"


def candidates_on(cores: int, present: Candidate, max_batch_size: int) -> list[Candidate]:
    """Return what is tried at first on `cores` cores, without `present`: every spread, without batching, and with each size of run.

    From one instance on one core to all cores in use, each way once. Where no request is answered together with another, and each has one
    image, the size of a run decides nothing: it stays as it is.
    """
    run = present.instances.largest_run
    runs = [size for size in sorted({*RUNS, run}, key=_size) if size < max_batch_size] if max_batch_size > 1 else []
    batching = [(None, run), *((0, size) for size in runs)]
    tried = [
        # While one of several instances works alone, it may as well take all cores.
        Candidate(InstanceSettings(instances, threads, delay_us, size, 0 if instances > 1 and threads < cores else None), reformats)
        for instances, threads in spreads_on(cores)
        for delay_us, size in batching
        for reformats in _reformats_on(cores, present)
    ]
    return _without(tried, present, cores)


def delayed(best: Sequence[Candidate], present: Candidate, cores: int) -> list[Candidate]:
    """Return those of `best` that batch, with each delay."""
    tried = [
        replace(candidate, instances=replace(candidate.instances, queue_delay_us=delay_us))
        for candidate in best
        for delay_us in DELAYS_US
        if candidate.instances.queue_delay_us == 0
    ]
    return _without(tried, present, cores)


def spreads_on(cores: int) -> list[tuple[int, int]]:
    """Return instances and threads of each, from one thread to twice as many as there are cores.

    More than there are can serve both a lone request, which then has several, and many, each of which finds an instance.
    """
    counts = sorted({1, 2, max(1, cores // 2), cores})
    return [(instances, threads) for instances in counts for threads in counts if instances * threads <= 2 * cores]


def _reformats_on(cores: int, present: Candidate) -> Sequence[int | None]:
    if present.reformats is None:
        return [None]
    return sorted({1, min(2, cores), present.reformats, min(cores, MOST_REFORMATS)})


def _without(tried: Sequence[Candidate], present: Candidate, cores: int) -> list[Candidate]:
    return [each for each in dict.fromkeys(tried) if _resolved(each, cores) != _resolved(present, cores)]


def _resolved(candidate: Candidate, cores: int) -> Candidate:
    """0 threads is the machine's cores divided among the instances: the same as so many."""
    settings = candidate.instances
    return replace(candidate, instances=replace(settings, threads=settings.threads or max(1, cores // settings.instances)))


def _size(run: int) -> float:
    return run or float("inf")
