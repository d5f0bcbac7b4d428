"""What a trained network is worth, counted over every image: accuracy with its interval, figures per class, the mistakes."""

import hashlib
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from sightline_training.datasets.image_set import UNKNOWN

Probabilities = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]
Pixels = npt.NDArray[np.uint8]


def accuracy_figures(answers: Probabilities, labels: Labels) -> dict[str, Any] | None:
    """Accuracy of probabilities [N, classes] against class indices [N]: n, correct, accuracy, Wilson's 95 % interval, mean loss.

    Images of UNKNOWN class are not counted; None if no other is there.
    """
    known = labels != UNKNOWN
    answers, labels = answers[known], labels[known]
    count = len(labels)
    if not count:
        return None
    correct = int((answers.argmax(axis=1) == labels).sum())
    low, high = wilson_interval(correct, count)
    chosen = answers[np.arange(count), labels].astype(np.float64)
    loss = float(-np.log(np.maximum(chosen, np.finfo(np.float32).tiny)).mean())
    return {"n": count, "correct": correct, "accuracy": correct / count, "interval_95": [low, high], "loss": loss}


def wilson_interval(successes: int, trials: int, z: float = 1.959964) -> tuple[float, float]:
    """Score interval of a proportion (E. B. Wilson 1927, "Probable inference, the law of succession, and statistical inference",
    Journal of the American Statistical Association 22, 209-212); `z` is the normal quantile, 1.959964 for 95 %.

    It says how far the accuracy on other images of the same kind may lie, not how much another seed would change it.
    """
    share = successes / trials
    centre = share + z * z / (2 * trials)
    spread = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    scale = 1 + z * z / trials
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def confusion(answers: Probabilities, labels: Labels) -> npt.NDArray[np.int64]:
    """Counts [classes, classes]: row the true class, column the answer."""
    classes, known = answers.shape[1], labels != UNKNOWN
    answers, labels = answers[known], labels[known]
    return np.bincount(labels * classes + answers.argmax(axis=1), minlength=classes * classes).reshape(classes, classes)


def per_class(matrix: npt.NDArray[np.int64], labels: tuple[str, ...]) -> list[dict[str, Any]]:
    """Label, n, recall (None without an image of the class) and precision (None if it was never answered) of each class."""
    rows = []
    for index, label in enumerate(labels):
        hits, present, answered = int(matrix[index, index]), int(matrix[index].sum()), int(matrix[:, index].sum())
        rows.append(
            {
                "label": label,
                "n": present,
                "recall": hits / present if present else None,
                "precision": hits / answered if answered else None,
            }
        )
    return rows


def seen_before(pixels: Pixels, known: Iterable[npt.NDArray[np.uint8]]) -> npt.NDArray[np.bool_]:
    """Which of `pixels` [N, H, W, C] are, byte for byte, also among the images `known`, each [H, W, C]."""
    seen = {hashlib.sha256(image.tobytes()).digest() for image in known}
    return np.fromiter((hashlib.sha256(image.tobytes()).digest() in seen for image in pixels), bool, len(pixels))


def worst_mistakes(answers: Probabilities, labels: Labels, most: int) -> npt.NDArray[np.int64]:
    """Indices of wrongly answered images, the surest wrong answer first, at most so many."""
    wrong = np.flatnonzero((answers.argmax(axis=1) != labels) & (labels != UNKNOWN))
    return wrong[np.argsort(-answers[wrong].max(axis=1), kind="stable")][:most]
