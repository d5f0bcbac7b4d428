"""Intervals and tests of proportions against worked examples that others published."""

import builtins
from typing import Any

import pytest

from sightline.errors import MissingExtra
from sightline.proportions import PairedCounts, demand_scipy, difference_interval, mcnemar_p, wilson_interval

pytest.importorskip("scipy")

CAVO = PairedCounts(both=59, only_a=6, only_b=16, neither=80)
"""Complete response before (A) and after (B) consolidation therapy: M. Cavo and others 2012, in M. W. Fagerland, S. Lydersen and
P. Laake 2017, "Statistical Analysis of Contingency Tables"."""

BENTUR = PairedCounts(both=1, only_a=1, only_b=7, neither=12)
"""Airway hyper-responsiveness before (A) and after (B) stem cell transplantation: L. Bentur and others 2009, in the same book."""


@pytest.mark.parametrize(
    ("counts", "difference", "interval"),
    [
        # What the book's own program (contingencytables, Newcombe_square_and_add_CI_paired_2x2) prints of A minus B: -0.1186 to -0.0046.
        (CAVO, 0.0621, (0.0046, 0.1186)),
        # M. W. Fagerland, S. Lydersen and P. Laake 2014, Statistics in Medicine 33, 2850-2875: -0.507 to -0.026 of A minus B.
        (BENTUR, 0.286, (0.026, 0.507)),
    ],
    ids=["Cavo", "Bentur"],
)
def test_the_interval_of_a_paired_difference_is_that_of_published_examples(
    counts: PairedCounts, difference: float, interval: tuple[float, float]
) -> None:
    digits = len(str(difference)) - 2
    assert round((counts.correct_b - counts.correct_a) / counts.images, digits) == difference
    measured = difference_interval(counts)
    assert measured is not None
    assert tuple(round(bound, digits) for bound in measured) == interval


def test_exchanging_the_models_turns_the_interval_round() -> None:
    for counts in (CAVO, BENTUR, PairedCounts(20, 2, 12, 16), PairedCounts(36, 2, 12, 0), PairedCounts(3, 0, 0, 0)):
        turned = difference_interval(PairedCounts(counts.both, counts.only_b, counts.only_a, counts.neither))
        there = difference_interval(counts)
        assert there is not None
        assert turned is not None
        assert turned == pytest.approx((-there[1], -there[0]))
        assert -1 <= there[0] <= there[1] <= 1


def test_models_that_never_differ_have_an_interval_round_zero_and_no_evidence_against_equality() -> None:
    counts = PairedCounts(both=90, only_a=0, only_b=0, neither=10)
    interval = difference_interval(counts)
    assert interval is not None
    assert interval[0] < 0 < interval[1]
    assert interval == pytest.approx((-interval[1], interval[1]))
    assert mcnemar_p(counts) == 1.0


def test_mcnemars_exact_p_is_that_of_a_fair_coin() -> None:
    # 22 images on which one model alone is right, 16 times B: 2 * sum(C(22, k), k <= 6) / 2**22; 8 images, 7 times B: 2 * (1 + 8) / 2**8.
    assert mcnemar_p(CAVO) == pytest.approx(2 * (1 + 22 + 231 + 1540 + 7315 + 26334 + 74613) / 2**22)
    assert mcnemar_p(BENTUR) == pytest.approx(18 / 256)
    assert mcnemar_p(PairedCounts(5, 3, 3, 0)) == 1.0


def test_wilsons_interval_is_that_of_published_examples() -> None:
    # R. G. Newcombe 1998, Statistics in Medicine 17, 857-872, table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29.
    for successes, trials, interval in (
        (81, 263, (0.2553, 0.3662)),
        (15, 148, (0.0624, 0.1605)),
        (0, 20, (0.0, 0.1611)),
        (1, 29, (0.0061, 0.1718)),
    ):
        measured = wilson_interval(successes, trials)
        assert tuple(round(bound, 4) for bound in measured) == interval
    with pytest.raises(ValueError, match="n"):
        wilson_interval(0, 0)
    assert difference_interval(PairedCounts(0, 0, 0, 0)) is None


def test_without_scipy_one_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    imported = builtins.__import__

    def absent(name: str, *arguments: Any, **more: Any) -> Any:
        if name == "scipy":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return imported(name, *arguments, **more)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(MissingExtra) as refusal:
        demand_scipy("a report on labelled images")
    assert str(refusal.value) == "a report on labelled images needs scipy: pip install 'sightline[score]'"
