"""Goes over a folder once and compares the answers of two classifiers, in bounded memory."""

import heapq
import os
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sightline.classifier import Classifier
from sightline.compare.answers import AnswerPair, Pair, ReadOnce, side_of
from sightline.compare.result import Broken, Comparison, Difference, PairedAccuracy, paired_accuracy
from sightline.errors import ImageError, UsageError
from sightline.flow import AHEAD, FlowSettings, flow
from sightline.host.files import reason_of
from sightline.host.text import encodable, printable
from sightline.image import MAX_PIXELS
from sightline.labelled.truths import Truths, UnknownTruths
from sightline.proportions import PairedCounts, demand_scipy
from sightline.scoring import ScoreProgress, listing
from sightline.scoring.engine import readers_for
from sightline.scoring.entries import Entry, PassedOver
from sightline.scoring.run import Notify

KEPT: Final = 20
"""Flips, and broken images, that a comparison holds; all are counted, and all are given to `keep`."""

Keep = Callable[[Difference | Broken], None]


@dataclass(frozen=True)
class CompareSettings:
    """How two models are compared."""

    labelled: bool = False
    """Whether the first folder below the compared one says what an image shows."""
    max_pixels: int = MAX_PIXELS
    """The most that an image may have."""
    ahead: FlowSettings = AHEAD


def compare(
    a: Classifier,
    b: Classifier,
    folder: Path,
    settings: CompareSettings = CompareSettings(),
    keep: Keep = lambda _: None,
    progress: Notify = lambda _progress: None,
) -> Comparison:
    """Ask both about every image below `folder`, and return where they differ.

    Where both cards have the same preprocessing each image is decoded once, and both get the same pixels; else once for each card.
    `keep` is called with each image whose labels differ and with each that cannot be read, in the order of the folder; `progress`
    says how far it is. Raises UsageError if the labels of the two differ, if the folder holds no image, or none in a class
    folder although `settings.labelled`; MissingExtra if that lacks scipy; and whatever a server raises.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder}: there is no such folder of images")
    images = listing(folder)
    pair = Pair(a, b)
    truths = Truths(pair.labels)
    if settings.labelled:
        demand_scipy("the accuracy of two models")
        _demand_class_folders(folder, truths)
    tally = _Tally(pair, truths if settings.labelled else None, keep)
    passed_over, under_way = PassedOver(), deque[Entry]()

    def noted() -> Iterator[Entry]:
        for entry in images.entries(passed_over):
            under_way.append(entry)
            yield entry

    read = ReadOnce(pair.specs, settings.max_pixels)
    ahead = settings.ahead.within(pair.batch_bytes)
    with readers_for(noted(), ahead) as (entries, readers):
        for outcome in flow((entry.image for entry in entries), read, pair.ask, pair.batch_size, ahead, readers):
            entry = under_way.popleft()
            tally.add(encodable(entry.name), encodable(entry.truth or ""), outcome)
            progress(ScoreProgress(tally.images + tally.broken, 0, tally.broken))
    if not tally.images + tally.broken:
        raise UsageError(f"{folder}: there is no image in this folder")
    return tally.comparison()


class _Tally:
    """What was compared up to an image."""

    def __init__(self, pair: Pair, truths: Truths | None, keep: Keep) -> None:
        self.images = self.broken = self.flips = 0
        self._pair, self._truths, self._keep = pair, truths, keep
        self._first_broken: list[Broken] = []
        self._worst: list[tuple[float, int, Difference]] = []
        """A heap: the smallest difference first; of equal ones the last."""
        self._farthest: Difference | None = None
        self._sum_delta_p = 0.0
        self._right: Counter[tuple[bool, bool]] = Counter()
        self._without_truth = 0
        self._unknown = UnknownTruths(truths or Truths(()))

    def add(self, image: str, folder: str, outcome: AnswerPair | ImageError) -> None:
        truth = folder if self._truths is not None else ""
        if isinstance(outcome, ImageError):
            self.broken += 1
            broken = Broken(image, truth, encodable(str(outcome)))
            if len(self._first_broken) < KEPT:
                self._first_broken.append(broken)
            self._keep(broken)
            return
        self.images += 1
        self._sum_delta_p += outcome.max_delta_p
        farther = self._farthest is None or outcome.max_delta_p > self._farthest.max_delta_p
        if farther or outcome.class_a != outcome.class_b:
            difference = self._difference(image, truth, outcome)
            if farther:
                self._farthest = difference
            if difference.flips:
                self._add_flip(difference)
        if self._truths is not None:
            self._add_truth(truth, outcome)

    def comparison(self) -> Comparison:
        return Comparison(
            a=side_of(self._pair.a),
            b=side_of(self._pair.b),
            same_preprocess=len(self._pair.specs) == 1,
            images=self.images,
            broken=self.broken,
            broken_images=tuple(self._first_broken),
            flips=self.flips,
            worst_flips=tuple(kept for _, _, kept in sorted(self._worst, key=lambda entry: entry[:2], reverse=True)),
            max_delta_p=self._farthest.max_delta_p if self._farthest else 0.0,
            max_delta_at=self._farthest,
            mean_delta_p=self._sum_delta_p / self.images if self.images else 0.0,
            accuracy=self._accuracy(),
        )

    def _difference(self, image: str, truth: str, pair: AnswerPair) -> Difference:
        labels = self._pair.labels
        return Difference(
            image=image,
            truth=truth,
            label_a=labels[pair.class_a],
            probability_a=pair.probability_a,
            label_b=labels[pair.class_b],
            probability_b=pair.probability_b,
            max_delta_p=pair.max_delta_p,
            delta_label=labels[pair.delta_class],
        )

    def _add_flip(self, flip: Difference) -> None:
        self.flips += 1
        entry = (flip.max_delta_p, -self.flips, flip)
        if len(self._worst) < KEPT:
            heapq.heappush(self._worst, entry)
        else:
            heapq.heappushpop(self._worst, entry)
        self._keep(flip)

    def _add_truth(self, truth: str, pair: AnswerPair) -> None:
        assert self._truths is not None
        index = self._truths.index_of(truth)
        if not truth:
            self._without_truth += 1
        elif index is None:
            self._unknown.add(truth, self._pair.labels[pair.class_a])
        else:
            self._right[pair.class_a == index, pair.class_b == index] += 1

    def _accuracy(self) -> PairedAccuracy | None:
        if self._truths is None:
            return None
        counts = PairedCounts(self._right[True, True], self._right[True, False], self._right[False, True], self._right[False, False])
        return paired_accuracy(counts, self._without_truth, self._unknown.listed(), self._unknown.unlisted)


def _demand_class_folders(folder: Path, truths: Truths) -> None:
    """Raise UsageError, before an image is read, if no folder is called as a label."""
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False) and not entry.name.startswith("."))
    except OSError as error:
        raise UsageError(f"{folder}: the folder cannot be read: {reason_of(error)}") from None
    if not any(truths.index_of(name) is not None for name in names):
        named = ", ".join(repr(printable(name)) for name in names[:3]) or "none"
        raise UsageError(
            f"{folder}: no folder in it is called as a label, so that nobody can say what the images show (folders: {named}; "
            f"labels: {', '.join(repr(label) for label in truths.labels[:3])} …)"
        )
