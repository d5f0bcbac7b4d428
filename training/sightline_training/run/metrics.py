"""Measures what a trained network is worth, over every image: accuracy with its interval, figures per class, the mistakes."""

import hashlib
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from sightline.batches import Probabilities
from sightline.proportions import wilson_interval
from sightline_training.datasets.image_set import UNKNOWN, Labels, Pixels
from sightline_training.run.report import Accuracy, ClassFigures


def accuracy_of(probabilities: Probabilities, labels: Labels) -> Accuracy | None:
    """Return the accuracy of probabilities [N, classes] against class indices [N], with Wilson's 95 % interval and the mean loss.

    Images of UNKNOWN class are not counted; None if no other is there.
    """
    known = labels != UNKNOWN
    probabilities, labels = probabilities[known], labels[known]
    count = len(labels)
    if not count:
        return None
    correct = int((probabilities.argmax(axis=1) == labels).sum())
    of_truth = probabilities[np.arange(count), labels].astype(np.float64)
    loss = float(-np.log(np.maximum(of_truth, np.finfo(np.float32).tiny)).mean())
    return Accuracy(n=count, correct=correct, accuracy=correct / count, interval_95=wilson_interval(correct, count), loss=loss)


def confusion_counts(probabilities: Probabilities, labels: Labels) -> npt.NDArray[np.int64]:
    """Return counts [classes, classes]: row the true class, column the answer."""
    classes, known = probabilities.shape[1], labels != UNKNOWN
    answers, labels = probabilities[known].argmax(axis=1), labels[known]
    return np.bincount(labels * classes + answers, minlength=classes * classes).reshape(classes, classes)


def class_figures(counts: npt.NDArray[np.int64], labels: tuple[str, ...]) -> tuple[ClassFigures, ...]:
    """Return recall and precision of each class from the confusion matrix."""
    rows = []
    for index, label in enumerate(labels):
        hits, present, answered = int(counts[index, index]), int(counts[index].sum()), int(counts[:, index].sum())
        recall = hits / present if present else None
        rows.append(ClassFigures(label=label, n=present, recall=recall, precision=hits / answered if answered else None))
    return tuple(rows)


def seen_before(pixels: Pixels, known: Iterable[npt.NDArray[np.uint8]]) -> npt.NDArray[np.bool_]:
    """Return which of `pixels` [N, H, W, C] are, byte for byte, also among the images `known`, each [H, W, C]."""
    digests = {hashlib.sha256(image.tobytes()).digest() for image in known}
    return np.fromiter((hashlib.sha256(image.tobytes()).digest() in digests for image in pixels), bool, len(pixels))


def worst_mistakes(probabilities: Probabilities, labels: Labels, limit: int) -> npt.NDArray[np.int64]:
    """Return the indices of at most `limit` wrongly answered images, the surest wrong answer first."""
    wrong = np.flatnonzero((probabilities.argmax(axis=1) != labels) & (labels != UNKNOWN))
    return wrong[np.argsort(-probabilities[wrong].max(axis=1), kind="stable")][:limit]
