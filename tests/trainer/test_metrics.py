"""The figures of a report, against published values and counts done by hand."""

import numpy as np
import pytest

from sightline.proportions import wilson_interval
from sightline_training.run.metrics import accuracy_of, class_figures, confusion_counts, seen_before, worst_mistakes

ANSWERS = np.array([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0], [0.6, 0.3, 0.1], [0.1, 0.7, 0.2], [0.99, 0.01, 0.0]], np.float32)
LABELS = np.array([0, 1, 1, 0, 1])


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [
        # R. G. Newcombe 1998, "Two-sided confidence intervals for the single proportion", Statistics in Medicine 17, table I, method 3.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilsons_interval_is_the_published_one(successes: int, trials: int, low: float, high: float) -> None:
    assert wilson_interval(successes, trials) == pytest.approx((low, high), abs=5e-5)


def test_all_right_is_not_certain() -> None:
    low, high = wilson_interval(20, 20)
    assert high == 1.0
    assert low == pytest.approx(0.8389, abs=5e-5)


def test_accuracy_is_counted_over_every_image() -> None:
    figures = accuracy_of(ANSWERS, LABELS)
    assert figures is not None
    assert (figures.n, figures.correct, figures.accuracy) == (5, 2, 0.4)
    assert figures.loss == pytest.approx(-np.log([0.9, 0.8, 0.3, 0.1, 0.01]).mean(), rel=1e-6)


def test_a_probability_of_zero_for_the_truth_gives_a_finite_loss() -> None:
    figures = accuracy_of(np.array([[1.0, 0.0]], np.float32), np.array([1]))
    assert figures is not None
    assert np.isfinite(figures.loss)


def test_rows_of_the_confusion_matrix_are_the_truth() -> None:
    assert confusion_counts(ANSWERS, LABELS).tolist() == [[1, 1, 0], [2, 1, 0], [0, 0, 0]]


def test_a_class_without_images_or_answers_has_no_recall_or_precision() -> None:
    rows = class_figures(confusion_counts(ANSWERS, LABELS), ("a", "b", "c"))
    assert [row.model_dump() for row in rows] == [
        {"label": "a", "n": 2, "recall": 1 / 2, "precision": 1 / 3},
        {"label": "b", "n": 3, "recall": 1 / 3, "precision": 1 / 2},
        {"label": "c", "n": 0, "recall": None, "precision": None},
    ]


def test_the_surest_wrong_answer_comes_first() -> None:
    assert worst_mistakes(ANSWERS, LABELS, 10).tolist() == [4, 3, 2]
    assert worst_mistakes(ANSWERS, LABELS, 1).tolist() == [4]


def test_only_images_equal_to_the_last_byte_count_as_seen() -> None:
    known = np.random.default_rng(0).integers(0, 256, (5, 4, 4, 1), dtype=np.uint8)
    asked = np.concatenate([known[2:3], known[3:4] ^ np.uint8(1)])
    assert seen_before(asked, known).tolist() == [True, False]
