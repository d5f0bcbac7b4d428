"""Asks two classifiers about the same images: each is decoded once, or once for each preprocessing; labels are matched by name."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from sightline.classifier import Classifier
from sightline.compare.result import Side, told_apart
from sightline.errors import ImageError, UsageError
from sightline.host.text import printable
from sightline.image import Admit, ImageInput
from sightline.preprocess import Preprocess
from sightline.reformatting import reformat

Pixels = npt.NDArray[np.uint8]
Probabilities = npt.NDArray[np.float32]

NAMED: Final = 3
"""Labels, of each side, in a refusal."""


@dataclass(frozen=True)
class AnswerPair:
    """What both said of one image; classes by their position in A's labels."""

    class_a: int
    probability_a: float
    class_b: int
    probability_b: float
    max_delta_p: float
    delta_class: int


@dataclass(frozen=True)
class ReadOnce:
    """Reads an image for both: its pixels, uint8 [1, 1, bytes], are those for A, then those for B unless both take the same.

    Picklable, so that processes can read too.
    """

    specs: tuple[Preprocess, ...]
    max_pixels: int

    def __call__(self, image: ImageInput, admit: Admit) -> Pixels | ImageError:
        """Return the pixels, or why there are none."""
        try:
            parts = [reformat(image, spec, self.max_pixels, admit).reshape(1, 1, -1) for spec in self.specs]
        except ImageError as error:
            return error
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=2)


class Pair:
    """Two classifiers with the same labels."""

    def __init__(self, a: Classifier, b: Classifier) -> None:
        """Raises UsageError if they do not have the same labels, in whatever order."""
        self.a, self.b = a, b
        self.labels = a.card.labels
        self._b_of_a = _positions(a, b)
        self._a_of_b = np.argsort(self._b_of_a)
        self.specs = (a.card.preprocess,) if a.card.preprocess == b.card.preprocess else (a.card.preprocess, b.card.preprocess)
        self._bytes_a = int(np.prod(a.card.preprocess.shape))
        self.batch_size = min(a.batch_size, b.batch_size)
        self.batch_bytes = self.batch_size * sum(int(np.prod(spec.shape)) for spec in self.specs)

    def ask(self, pixels: Pixels) -> Sequence[AnswerPair]:
        """Return what both say of images that ReadOnce has read: uint8 [N, 1, 1, bytes]."""
        rows = pixels.reshape(len(pixels), -1)
        of_a = rows[:, : self._bytes_a]
        of_b = of_a if len(self.specs) == 1 else rows[:, self._bytes_a :]
        a, b = (self._answer(classifier, part) for classifier, part in ((self.a, of_a), (self.b, of_b)))
        # Of equal probabilities each side's own order of labels decides, as in its guesses.
        best_a, best_b = a.argmax(axis=1), b.argmax(axis=1)
        deltas = np.abs(a.astype(np.float64) - b[:, self._b_of_a])
        every = np.arange(len(rows))
        largest = deltas.argmax(axis=1)
        columns = (best_a, a[every, best_a], self._a_of_b[best_b], b[every, best_b], deltas[every, largest], largest)
        return [AnswerPair(*values) for values in zip(*(column.tolist() for column in columns), strict=True)]

    def _answer(self, classifier: Classifier, rows: Pixels) -> Probabilities:
        return classifier.probabilities_of_pixels(np.ascontiguousarray(rows).reshape(-1, *classifier.card.preprocess.shape))


def side_of(classifier: Classifier) -> Side:
    """Return what a comparison says of a classifier."""
    return Side(classifier.model, classifier.version, classifier.url, classifier.card.sha256)


def _positions(a: Classifier, b: Classifier) -> npt.NDArray[np.intp]:
    """Return, for each label of A, its position in B's labels."""
    positions = {label: position for position, label in enumerate(b.card.labels)}
    only_a = [label for label in a.card.labels if label not in positions]
    only_b = sorted(positions.keys() - set(a.card.labels), key=positions.__getitem__)
    if only_a or only_b:
        names = told_apart(side_of(a), side_of(b))
        differences = [f"only {name} has {_listed(labels)}" for labels, name in zip((only_a, only_b), names, strict=True) if labels]
        raise UsageError(f"{names[0]} and {names[1]} cannot be compared, since their labels differ: {'; '.join(differences)}")
    return np.array([positions[label] for label in a.card.labels], np.intp)


def _listed(labels: Sequence[str]) -> str:
    named = ", ".join(repr(printable(label)) for label in labels[:NAMED])
    return named + (f" and {len(labels) - NAMED:,} more" if len(labels) > NAMED else "")
