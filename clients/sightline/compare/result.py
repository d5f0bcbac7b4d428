"""What a comparison says: values that are printed as a table, and as the document of `--json`, whose fields docs/clients.md describes."""

from dataclasses import dataclass

from sightline.errors import UsageError
from sightline.host.text import printable
from sightline.labelled.truths import UnknownTruth
from sightline.proportions import Interval, PairedCounts, difference_interval, mcnemar_p, wilson_interval


@dataclass(frozen=True)
class Side:
    """One of the two that were compared."""

    model: str
    version: str
    """That was asked for; empty if the server chose."""
    url: str
    card_sha256: str

    def __str__(self) -> str:
        return f"{self.model}:{self.version}" if self.version else self.model


def told_apart(a: Side, b: Side) -> tuple[str, str]:
    """Return what to call the two: by their addresses too, where model and version are the same."""
    return (str(a), str(b)) if str(a) != str(b) else (f"{a}@{a.url}", f"{b}@{b.url}")


@dataclass(frozen=True)
class Difference:
    """The answers of both to one image."""

    image: str
    """Path below the folder, with `/`."""
    truth: str
    """Its class folder; empty if that was not asked for, or there is none."""
    label_a: str
    probability_a: float
    """That A gives its label, 0..1."""
    label_b: str
    probability_b: float
    """That B gives its label, 0..1."""
    max_delta_p: float
    """The largest difference of the probabilities that both give a class."""
    delta_label: str
    """The class of that difference."""

    @property
    def flips(self) -> bool:
        """Whether the two answer with different labels."""
        return self.label_a != self.label_b


@dataclass(frozen=True)
class Broken:
    """An image that could not be read, and so was not compared."""

    image: str
    truth: str
    error: str


@dataclass(frozen=True)
class PairedAccuracy:
    """How often both were right on the images whose class folder is a label and that could be read."""

    images: int
    both_right: int
    only_a_right: int
    only_b_right: int
    neither_right: int
    accuracy_a: float | None
    """None without images."""
    interval_a_95: Interval | None
    """Wilson's."""
    accuracy_b: float | None
    interval_b_95: Interval | None
    difference: float | None
    """B's accuracy minus A's."""
    difference_interval_95: Interval | None
    """Newcombe's method 10, for paired answers."""
    mcnemar_p: float
    """McNemar's exact two-sided p-value: how likely so uneven a split is if both are right equally often."""
    without_truth: int
    """Images that lie in no class folder."""
    unknown_truths: tuple[UnknownTruth, ...]
    """Class folders that are no label, with what A answered to their images."""
    unlisted_truths_images: int
    """Images of further such folders, beyond those that are listed."""


@dataclass(frozen=True)
class Limits:
    """How much two may differ. None: as much as they like."""

    flips: int | None = None
    """Images with different labels."""
    delta_p: float | None = None
    """The largest difference of a class's probabilities on an image, 0..1."""

    def __post_init__(self) -> None:
        """Validate: nothing is more than NaN, so that such a limit would let everything pass."""
        if self.delta_p is not None and not 0 <= self.delta_p <= 1:
            raise UsageError(f"probabilities may differ by 0 to 1, not by {self.delta_p:g}", settings=("delta_p",))
        if self.flips is not None and self.flips < 0:
            raise UsageError(f"the number of labels that may differ is at least 0, not {self.flips}", settings=("flips",))


@dataclass(frozen=True)
class Comparison:
    """What a comparison says."""

    a: Side
    b: Side
    same_preprocess: bool
    """Whether both cards have the same preprocessing, so that both were asked with the very same pixels."""
    images: int
    """That could be read, and were compared."""
    broken: int
    broken_images: tuple[Broken, ...]
    """The first of them (`sightline.compare.compare.KEPT`)."""
    flips: int
    """Images with different labels."""
    worst_flips: tuple[Difference, ...]
    """Those whose probabilities differ most, at most `sightline.compare.compare.KEPT`, worst first."""
    max_delta_p: float
    """The largest difference of a class's probabilities on any image."""
    max_delta_at: Difference | None
    """That image; None without images."""
    mean_delta_p: float
    """The mean over the images of each one's largest difference."""
    accuracy: PairedAccuracy | None
    """None unless it was asked for."""

    def excess(self, limits: Limits) -> list[str]:
        """Return in words what goes beyond the limits; nothing if all is well."""
        beyond = []
        if limits.flips is not None and self.flips > limits.flips:
            beyond.append(f"{self.flips:,} labels differ, where at most {limits.flips:,} may")
        if limits.delta_p is not None and self.max_delta_p > limits.delta_p and self.max_delta_at is not None:
            where = printable(self.max_delta_at.image)
            beyond.append(f"probabilities differ by {self.max_delta_p:.3g} at {where}, where they may by {limits.delta_p:g}")
        return beyond


def paired_accuracy(counts: PairedCounts, without_truth: int, unknown: tuple[UnknownTruth, ...], unlisted: int) -> PairedAccuracy:
    """Return the figures that follow from the counts."""
    n = counts.images
    return PairedAccuracy(
        images=n,
        both_right=counts.both,
        only_a_right=counts.only_a,
        only_b_right=counts.only_b,
        neither_right=counts.neither,
        accuracy_a=counts.correct_a / n if n else None,
        interval_a_95=wilson_interval(counts.correct_a, n) if n else None,
        accuracy_b=counts.correct_b / n if n else None,
        interval_b_95=wilson_interval(counts.correct_b, n) if n else None,
        difference=(counts.correct_b - counts.correct_a) / n if n else None,
        difference_interval_95=difference_interval(counts),
        mcnemar_p=mcnemar_p(counts),
        without_truth=without_truth,
        unknown_truths=unknown,
        unlisted_truths_images=unlisted,
    )
