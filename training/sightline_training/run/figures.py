"""Decides which figures a run folder gets, and what is written under them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch

from sightline_training.augment.kornia_ops import Augmentation, InTurn
from sightline_training.datasets.image_set import UNKNOWN, Labels, Pixels
from sightline_training.loop.batches import seed_of
from sightline_training.loop.history import Epoch, kept_epoch
from sightline_training.run import plots
from sightline_training.run.evaluation import Evaluation
from sightline_training.run.folder import AUGMENTATIONS, CONFUSION, CURVES, MISTAKES
from sightline_training.run.metrics import worst_mistakes
from sightline_training.run.report import RunReport
from sightline_training.run.summary import SPLIT_NAMES

MISTAKES_SHOWN: Final = 40
IMAGES_AUGMENTED: Final = 8
VARIANTS: Final = 4
"""Of each image under everything together."""


def draw_figures(folder: Path, evaluation: Evaluation, report: RunReport, history: Sequence[Epoch]) -> None:
    """Draw curves, confusion matrix, worst mistakes and augmentations, as far as there is something to draw. Raises OSError."""
    recipe = evaluation.recipe
    if history:
        watched = SPLIT_NAMES[report.chosen_on or report.judged_on]
        plots.draw_curves(folder / CURVES, history, kept_epoch(history, report.chosen_on is not None), watched)
    _draw_answers(folder, evaluation, report)
    if recipe.augmentation is not None and "train" in evaluation.pixels:
        torch.manual_seed(seed_of(report.seed, "augmentations shown"))
        _draw_augmentations(folder / AUGMENTATIONS, recipe.augmentation, evaluation.pixels["train"], evaluation.labels["train"])


def _draw_answers(folder: Path, evaluation: Evaluation, report: RunReport) -> None:
    """Draw the confusion matrix and the mistakes on the judged images, unless nobody knows what they show."""
    accuracy, judged_on, card = report.judged_accuracy, report.judged_on, evaluation.recipe.card
    if accuracy is None or report.confusion is None:
        return
    labels, probabilities = evaluation.labels[judged_on], evaluation.probabilities[judged_on]
    images = f"{accuracy.n:,} {SPLIT_NAMES[judged_on]} images"
    headline = f"{card.name} on {images} of {report.dataset.name}: {accuracy.accuracy:.2%}"
    plots.draw_confusion(folder / CONFUSION, np.array(report.confusion.counts), card.labels, headline)
    worst = worst_mistakes(probabilities, labels, MISTAKES_SHOWN)
    captions = [
        f"{card.labels[labels[index]]} → {card.labels[probabilities[index].argmax()]}  {probabilities[index].max():.3f}" for index in worst
    ]
    title = f"The worst of {accuracy.n - accuracy.correct:,} mistakes among {images} (true → answer, its probability)"
    plots.draw_mistakes(folder / MISTAKES, evaluation.pixels[judged_on][worst], captions, title)


def _draw_augmentations(path: Path, augmentation: Augmentation, pixels: Pixels, labels: Labels) -> None:
    """Draw a row for each distortion alone, then rows of all together, as training sees them."""
    originals = pixels[_one_of_each_class(labels, IMAGES_AUGMENTED)]
    batch = torch.from_numpy(originals)
    rows = {"original": originals.astype(np.float32)}
    if isinstance(augmentation, InTurn):
        rows |= {step.name: step(batch).numpy() for step in augmentation.steps}
    rows |= {f"all together ({number})": augmentation(batch).numpy() for number in range(1, VARIANTS + 1)}
    plots.draw_augmentations(path, rows, "What training sees: images, each distortion alone, and all together")


def _one_of_each_class(labels: Labels, limit: int) -> list[int]:
    """Return indices of images of as many different classes as there are, then of others."""
    firsts = [int((labels == label).argmax()) for label in np.unique(labels[labels != UNKNOWN])]
    others = [index for index in range(min(len(labels), limit)) if index not in firsts]
    return (firsts + others)[:limit]
