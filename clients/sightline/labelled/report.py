"""Counts rows of labelled images in one pass: right and wrong by class, what could not be read, truths that are no label, mistakes.

Memory is bounded by the classes, not by the rows: what is kept is a count for each pair of classes that occurred, and the mistakes
that the model was surest of.
"""

import heapq
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sightline.errors import DataError
from sightline.host.text import printable
from sightline.labelled.truths import Truths, UnknownTruth, UnknownTruths
from sightline.proportions import Interval, wilson_interval

MOST_MISTAKES: Final = 10_000
"""Listed, those that the model was surest of; all are counted, and all stand in the rows."""


@dataclass(frozen=True)
class LabelledRow:
    """An image with what it shows, and what was answered."""

    image: str
    truth: str
    """What it shows; empty if nobody says so."""
    label: str
    """The answer; empty where there is an error."""
    probability: float
    """Of the answer, 0..1; means nothing where there is an error."""
    error: str
    """Why the image could not be read; empty where there is an answer."""


@dataclass(frozen=True)
class ClassCounts:
    """What came of the images of one class."""

    label: str
    support: int
    """Images of this class that were answered."""
    unreadable: int
    """Images of this class that could not be read: in no figure below."""
    answered: int
    """Images of any class that were answered with this one."""
    correct: int

    @property
    def recall(self) -> float | None:
        """The share of the class's images that were answered rightly; None if there is none."""
        return self.correct / self.support if self.support else None

    @property
    def precision(self) -> float | None:
        """The share of the images answered with this class that are of it; None if none was."""
        return self.correct / self.answered if self.answered else None

    @property
    def f1(self) -> float | None:
        """The harmonic mean of precision and recall; None for a class that neither occurred nor was answered."""
        return 2 * self.correct / (self.support + self.answered) if self.support + self.answered else None


@dataclass(frozen=True)
class LabelledReport:
    """What rows say of a model.

    The accuracy is that of the images which were answered. `accuracy_with_unreadable` counts those that could not be read as wrong: that
    is what the model is worth to whoever sends such images. Images whose truth is no label, or unknown, are in neither.
    """

    labels: tuple[str, ...]
    images: int
    """All rows."""
    answered: int
    """Images with a label as their truth that could be read."""
    correct: int
    unreadable: int
    """Images with a label as their truth that could not be read."""
    without_truth: int
    """Images of which nobody says what they show."""
    unknown_truths: tuple[UnknownTruth, ...]
    """Truths that are no label, those of most images first."""
    unlisted_truths_images: int
    """Images of further such truths, beyond the first `sightline.labelled.truths.MOST_UNKNOWN`."""
    interval_95: Interval | None
    """Wilson's, of `accuracy`."""
    interval_with_unreadable_95: Interval | None
    classes: tuple[ClassCounts, ...]
    """In the order of the labels."""
    confusion: Mapping[tuple[int, int], int]
    """(True class, answered class) → answered images; pairs that did not occur are left out."""
    mistakes: tuple[LabelledRow, ...]
    """The wrong answers that the model was surest of, at most MOST_MISTAKES, surest first."""

    @property
    def accuracy(self) -> float | None:
        """The share of the answered images that were answered rightly; None if there is none."""
        return self.correct / self.answered if self.answered else None

    @property
    def accuracy_with_unreadable(self) -> float | None:
        """The same with the images that could not be read, as wrong ones."""
        return self.correct / (self.answered + self.unreadable) if self.answered + self.unreadable else None

    @property
    def mistakes_count(self) -> int:
        """How many answers were wrong, those that are not listed among them."""
        return self.answered - self.correct

    @property
    def unknown_images(self) -> int:
        """Images whose truth is no label of the model."""
        return sum(unknown.images for unknown in self.unknown_truths) + self.unlisted_truths_images

    @property
    def balanced_accuracy(self) -> float | None:
        """The mean recall of the classes that occurred, each counted once whatever its images; None if none did."""
        recalls = [each.recall for each in self.classes if each.recall is not None]
        return sum(recalls) / len(recalls) if recalls else None

    @property
    def macro_f1(self) -> float | None:
        """The mean F1 of the classes that occurred; None if none did."""
        values = [each.f1 for each in self.classes if each.support and each.f1 is not None]
        return sum(values) / len(values) if values else None


def labelled_report(rows: Iterable[LabelledRow], labels: Sequence[str]) -> LabelledReport:
    """Return what rows say of the model that has these labels; the rows are read once.

    Raises DataError for a row that was not made by this model: without an answer and an error, with an answer that is no label, or with
    a probability that is none.
    """
    truths = Truths(labels)
    counted = _Counted(truths)
    for row in rows:
        counted.add(row)
    return counted.report()


class _Counted:
    """What was counted up to a row."""

    def __init__(self, truths: Truths) -> None:
        self._truths = truths
        self._unknown = UnknownTruths(truths)
        self._images = self._without_truth = 0
        self._confusion: Counter[tuple[int, int]] = Counter()
        self._unreadable: Counter[int] = Counter()
        self._mistakes: list[tuple[float, int, LabelledRow]] = []
        """A heap: the least sure first; of equally sure ones the last."""

    def add(self, row: LabelledRow) -> None:
        self._images += 1
        answer = None if row.error else self._answer_of(row)
        truth = self._truths.index_of(row.truth)
        if not row.truth:
            self._without_truth += 1
        elif truth is None:
            self._unknown.add(row.truth, None if answer is None else row.label)
        elif answer is None:
            self._unreadable[truth] += 1
        else:
            self._confusion[truth, answer] += 1
            if answer != truth:
                self._keep(row)

    def report(self) -> LabelledReport:
        supports, answers = Counter[int](), Counter[int]()
        for (truth, answer), count in self._confusion.items():
            supports[truth] += count
            answers[answer] += count
        hits = {truth: count for (truth, answer), count in self._confusion.items() if truth == answer}
        answered, correct, unreadable = supports.total(), sum(hits.values()), self._unreadable.total()
        return LabelledReport(
            labels=self._truths.labels,
            images=self._images,
            answered=answered,
            correct=correct,
            unreadable=unreadable,
            without_truth=self._without_truth,
            unknown_truths=self._unknown.listed(),
            unlisted_truths_images=self._unknown.unlisted,
            interval_95=wilson_interval(correct, answered) if answered else None,
            interval_with_unreadable_95=wilson_interval(correct, answered + unreadable) if answered + unreadable else None,
            classes=tuple(
                ClassCounts(label, supports[index], self._unreadable[index], answers[index], hits.get(index, 0))
                for index, label in enumerate(self._truths.labels)
            ),
            confusion=dict(self._confusion),
            mistakes=tuple(row for _, _, row in sorted(self._mistakes, key=lambda kept: (-kept[0], -kept[1]))),
        )

    def _answer_of(self, row: LabelledRow) -> int:
        where = printable(row.image)
        if not row.label:
            raise DataError(f"{where}: the row has neither a label nor an error: it was not written by `sightline score`")
        answer = self._truths.index_of_answer(row.label)
        if answer is None:
            raise DataError(f"{where}: the row's answer {printable(row.label)!r} is no label of the model: another model wrote these rows")
        if not 0 <= row.probability <= 1:
            raise DataError(f"{where}: the row's probability is {row.probability}, not between 0 and 1")
        return answer

    def _keep(self, row: LabelledRow) -> None:
        entry = (row.probability, -self._images, row)
        if len(self._mistakes) < MOST_MISTAKES:
            heapq.heappush(self._mistakes, entry)
        else:
            heapq.heappushpop(self._mistakes, entry)
