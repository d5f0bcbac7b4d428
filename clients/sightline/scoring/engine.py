"""Who answers for the entries of a job. A job asks an engine for outcomes in order, and keeps listing, rows and journal to itself."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from typing import Final, Protocol

from sightline.classifier import Classifier
from sightline.flow import FlowSettings
from sightline.host.cpu import usable_cores
from sightline.readers import Readers, reading_processes, reading_threads
from sightline.scoring.entries import Entry
from sightline.scoring.rows import Outcome

FEW: Final = 32
"""Fewer images are nothing that processes are begun for; and where these lie, the others do too."""
FETCHERS: Final = 16
"""Images that are fetched from elsewhere at the same time."""


class Engine(Protocol):
    """Gives outcomes for entries.

    The first entry that it is given is always that of a row whose number is a multiple of `batch_size`. It may read entries ahead, but
    the outcomes of `batch_size` consecutive ones, counted from the first, must not depend on the others: a resumed job then makes the
    same rows as one that ran through.
    """

    @property
    def batch_size(self) -> int:
        """Rows that are asked for together."""
        ...

    def answers(self, entries: Iterable[Entry]) -> Iterator[Outcome]:
        """Give an outcome for each entry, in order. Raises what ends the job, such as ServerUnavailable."""
        ...


@dataclass(frozen=True)
class ClassifierEngine:
    """One classifier that is asked, and threads or processes that read images for it."""

    classifier: Classifier
    top: int
    flow: FlowSettings

    @property
    def batch_size(self) -> int:
        """Images of each request, filled up where some cannot be read."""
        return self.classifier.batch_size

    def answers(self, entries: Iterable[Entry]) -> Iterator[Outcome]:
        """Give an outcome for each entry, in order."""
        with readers_for(entries, self.flow) as (remaining, readers):
            yield from self.classifier.stream((entry.image for entry in remaining), self.top, self.flow, readers)


@contextmanager
def readers_for(entries: Iterable[Entry], flow: FlowSettings) -> Iterator[tuple[Iterator[Entry], Readers]]:
    """Give the entries, and what suits them to be read by.

    Processes for what lies on this machine, one for each core; threads for a few images, and for what is waited for.
    """
    remaining = iter(entries)
    first = list(islice(remaining, FEW))
    count = flow.readers or usable_cores()
    if any(entry.is_far for entry in first):
        opened = reading_threads(flow.readers or max(FETCHERS, count), flow.pixels)
    elif len(first) < FEW:
        opened = reading_threads(count, flow.pixels)
    else:
        opened = reading_processes(count, flow.pixels)
    with opened as readers:
        yield chain(first, remaining), readers
