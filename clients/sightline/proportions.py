"""What counts of right and wrong answers say of other images: intervals and a test, with scipy.

Two models that answer the same images give paired counts. Whoever compares their accuracies as if the images were different ones overlooks
that both mostly fail on the same images, and sees a difference too late.
"""

from dataclasses import dataclass
from math import sqrt

from sightline.errors import MissingExtra

Interval = tuple[float, float]
"""Lower and upper bound, 95 %."""


@dataclass(frozen=True)
class PairedCounts:
    """How often two models, A and B, were right on the same images."""

    both: int
    only_a: int
    only_b: int
    neither: int

    @property
    def images(self) -> int:
        """Of all four kinds."""
        return self.both + self.only_a + self.only_b + self.neither

    @property
    def correct_a(self) -> int:
        """Right answers of A."""
        return self.both + self.only_a

    @property
    def correct_b(self) -> int:
        """Right answers of B."""
        return self.both + self.only_b


def demand_scipy(purpose: str) -> None:
    """Raise MissingExtra, which says that `purpose` needs scipy, if it is not installed."""
    try:
        import scipy  # noqa: F401
    except ModuleNotFoundError:
        raise MissingExtra(f"{purpose} needs scipy: pip install 'sightline[score]'") from None


def wilson_interval(successes: int, trials: int) -> Interval:
    """Return the 95 % score interval of a proportion of at least one trial.

    E. B. Wilson 1927, "Probable inference, the law of succession, and statistical inference", Journal of the American Statistical
    Association 22, 209-212. For an accuracy it says how far that on other images of the same kind may lie, not how much another seed
    would change it.
    """
    from scipy.stats import binomtest  # half a second that only those need who ask

    low, high = binomtest(successes, trials).proportion_ci(method="wilson")
    return float(low), float(high)


def difference_interval(counts: PairedCounts) -> Interval | None:
    """Return the 95 % interval of the difference of two paired proportions, B's minus A's; None without images.

    Method 10 of R. G. Newcombe 1998, "Improved confidence intervals for the difference between binomial proportions based on paired data",
    Statistics in Medicine 17, 2635-2650: Wilson's intervals of both, put together with the correlation of the answers.
    """
    if not counts.images:
        return None
    interval_a, interval_b = (wilson_interval(correct, counts.images) for correct in (counts.correct_a, counts.correct_b))
    a, b = counts.correct_a / counts.images, counts.correct_b / counts.images
    below_a, above_a = a - interval_a[0], interval_a[1] - a
    below_b, above_b = b - interval_b[0], interval_b[1] - b
    phi = _correlation(counts)
    low = sqrt(below_b**2 - 2 * phi * below_b * above_a + above_a**2)
    high = sqrt(above_b**2 - 2 * phi * above_b * below_a + below_a**2)
    return max(-1.0, b - a - low), min(1.0, b - a + high)


def mcnemar_p(counts: PairedCounts) -> float:
    """Return the exact two-sided p-value of "A and B are right equally often"; 1 where they never differ.

    Q. McNemar 1947, "Note on the sampling error of the difference between correlated proportions or percentages", Psychometrika 12,
    153-157, in its exact form: of the images on which one alone is right, each is as likely to be A's as B's.
    """
    from scipy.stats import binomtest

    parted = counts.only_a + counts.only_b
    return float(binomtest(counts.only_b, parted, 0.5).pvalue) if parted else 1.0


def _correlation(counts: PairedCounts) -> float:
    """Newcombe's phi: the correlation of right answers, with half an image off what is positive; 0 where a margin is empty."""
    wrong_a, wrong_b = counts.only_b + counts.neither, counts.only_a + counts.neither
    margins = counts.correct_a * wrong_a * counts.correct_b * wrong_b
    if not margins:
        return 0.0
    excess = counts.both * counts.neither - counts.only_a * counts.only_b
    return (max(0.0, excess - counts.images / 2) if excess > 0 else excess) / sqrt(margins)
