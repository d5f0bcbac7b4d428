"""Which label a truth names, such as the class folder of an image; for a name that is no label, the nearest label is suggested."""

import difflib
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sightline.host.text import printable

MOST_UNKNOWN: Final = 1000
"""Truths that are no label and are kept by their names; of the others the images are counted."""

SUGGESTED_FROM: Final = 0.6
"""The least likeness, 0..1, of a label that is suggested (difflib's default)."""

SEARCHED: Final = 5000
"""Labels among which the nearest is searched: a search takes some 20 µs a label."""


@dataclass(frozen=True)
class UnknownTruth:
    """A truth that is no label of the model, as that of images in a folder with a mistyped name."""

    truth: str
    images: int
    """With this truth, those that cannot be read among them."""
    unreadable: int
    nearest: str
    """The label that is nearest to it; empty if none is near."""
    answers: Mapping[str, int]
    """Answered label → images."""

    def sentence(self) -> str:
        """Return what a user is told of it."""
        meant = f": is {printable(self.nearest)!r} meant?" if self.nearest else ""
        return f"{printable(self.truth)!r} is no label of the model ({self.images:,} image{'s' * (self.images != 1)}){meant}"


class Truths:
    """The labels of a model, found by the truths that name them.

    A truth names the label that is the same text, or the same letters in another Unicode form: file systems of macOS decompose `ö`. A
    difference of case or of signs is no match, since "may" and "May" can be two classes; it is suggested.
    """

    def __init__(self, labels: Sequence[str]) -> None:
        self.labels = tuple(labels)
        self._exact = {label: index for index, label in enumerate(self.labels)}
        forms = Counter(unicodedata.normalize("NFC", label) for label in self.labels)
        self._composed = {form: self._exact[label] for label in self.labels if forms[form := unicodedata.normalize("NFC", label)] == 1}
        self._plain: dict[str, str] = {}
        for label in self.labels:
            self._plain.setdefault(_plain(label), label)

    def index_of(self, truth: str) -> int | None:
        """Return the position of the label that a truth names, or None."""
        index = self._exact.get(truth)
        return self._composed.get(unicodedata.normalize("NFC", truth)) if index is None else index

    def index_of_answer(self, label: str) -> int | None:
        """Return the position of a label that a model answered, exactly; None if it has no such label."""
        return self._exact.get(label)

    def nearest(self, truth: str) -> str:
        """Return the label that is most like a truth which is none; empty if none is near."""
        plain = _plain(truth)
        if plain in self._plain:
            return self._plain[plain]
        near = difflib.get_close_matches(plain[:100], list(self._plain)[:SEARCHED], n=1, cutoff=SUGGESTED_FROM)
        return self._plain[near[0]] if near else ""


class UnknownTruths:
    """Counts images by truths that are no label, in bounded memory."""

    def __init__(self, truths: Truths) -> None:
        self.unlisted = 0
        """Images of truths beyond the first MOST_UNKNOWN."""
        self._truths = truths
        self._answers: dict[str, Counter[str]] = {}
        self._unreadable: Counter[str] = Counter()

    def add(self, truth: str, label: str | None) -> None:
        """Count an image: its answered label, or None if it cannot be read."""
        if truth not in self._answers:
            if len(self._answers) == MOST_UNKNOWN:
                self.unlisted += 1
                return
            self._answers[truth] = Counter()
        if label is None:
            self._unreadable[truth] += 1
        else:
            self._answers[truth][label] += 1

    def listed(self) -> tuple[UnknownTruth, ...]:
        """Return the truths with their counts, those of most images first."""
        found = (
            UnknownTruth(truth, answers.total() + self._unreadable[truth], self._unreadable[truth], self._truths.nearest(truth), answers)
            for truth, answers in self._answers.items()
        )
        return tuple(sorted(found, key=lambda unknown: (-unknown.images, unknown.truth)))


def _plain(name: str) -> str:
    """A name without regard to case, Unicode form, and what stands for a space in names of files."""
    return " ".join(unicodedata.normalize("NFKC", name).casefold().replace("_", " ").replace("-", " ").split())
