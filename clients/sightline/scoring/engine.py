"""Who answers for the entries of a job. A job asks an engine for outcomes in order, and keeps listing, rows and journal to itself."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from sightline.classifier import Classifier
from sightline.flow import FlowSettings
from sightline.readers import Readers
from sightline.scoring.entries import Entry
from sightline.scoring.rows import Outcome


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
    readers: Readers

    @property
    def batch_size(self) -> int:
        """Images of each request, filled up where some cannot be read."""
        return self.classifier.batch_size

    def answers(self, entries: Iterable[Entry]) -> Iterator[Outcome]:
        """Give an outcome for each entry, in order."""
        return self.classifier.stream((entry.image for entry in entries), self.top, self.flow, self.readers)
