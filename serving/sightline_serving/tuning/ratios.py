"""How sure a measured ratio is: the median over rounds, and an interval for it that assumes no distribution."""

import statistics
from collections.abc import Sequence
from math import comb
from typing import Final

Interval = tuple[float, float]

CONFIDENCE: Final = 0.95


def geometric_mean(values: Sequence[float]) -> float:
    """Return the geometric mean of ratios; 0 if one of them is."""
    return float(statistics.geometric_mean(values)) if min(values) > 0 else 0.0


def median_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> Interval | None:
    """Return the narrowest interval of two of the values that covers the true median with `confidence`; None where so few cannot.

    By order statistics: each round is as likely to lie above the true median as below it, so that the k-th smallest and the k-th largest
    of n rounds miss it with the probability 2 · P(B ≤ k-1), B of the binomial distribution (n, 1/2) (H. A. David and H. N. Nagaraja,
    "Order Statistics", 3rd edition, 2003, section 7.1). A round that somebody disturbed moves it by one place at most. It takes 6 rounds.
    """
    ordered, n = sorted(values), len(values)
    within = None
    for k in range(1, n // 2 + 1):
        missed = 2 * sum(comb(n, below) for below in range(k)) / 2**n
        if 1 - missed < confidence:
            break
        within = ordered[k - 1], ordered[n - k]
    return within
