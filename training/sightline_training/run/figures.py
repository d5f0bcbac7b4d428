"""Which images a run folder gets, and what is written under them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from sightline_training.augment.kornia_ops import Augmentation, InTurn
from sightline_training.datasets.image_set import UNKNOWN, Split
from sightline_training.loop.batches import seed_of
from sightline_training.loop.fit import Epoch, kept_epoch
from sightline_training.recipe import Recipe
from sightline_training.run import folder as run_folder
from sightline_training.run import metrics as judgement
from sightline_training.run import plots
from sightline_training.run.metrics import Labels, Pixels, Probabilities
from sightline_training.run.summary import SETS

MISTAKES_SHOWN: Final = 40
IMAGES_AUGMENTED: Final = 8
VARIANTS: Final = 4
"""Of each image under everything together."""


def draw(
    folder: Path,
    recipe: Recipe,
    report: Mapping[str, Any],
    history: list[Epoch],
    pixels: Mapping[Split, Pixels],
    labels: Mapping[Split, Labels],
    answers: Mapping[Split, Probabilities],
) -> None:
    """Curves, confusion matrix, worst mistakes and augmentations, as far as there is something to draw."""
    on: Split = report["judged_on"]
    if history:
        watched = SETS[report["chosen_on"] or on]
        plots.draw_curves(folder / run_folder.CURVES, history, kept_epoch(history, report["chosen_on"] is not None), watched)
    if report["accuracy"][on] is not None:
        _draw_answers(folder, recipe, report, pixels[on], labels[on], answers[on])
    if recipe.augmentation is not None and "train" in pixels:
        torch.manual_seed(seed_of(report["seed"], "augmentations shown"))
        _draw_augmentations(folder / run_folder.AUGMENTATIONS, recipe.augmentation, pixels["train"], labels["train"])


def _draw_answers(folder: Path, recipe: Recipe, report: Mapping[str, Any], pixels: Pixels, labels: Labels, answers: Probabilities) -> None:
    card, on = recipe.card, SETS[report["judged_on"]]
    figures = report["accuracy"][report["judged_on"]]
    headline = f"{card.name} on {figures['n']:,} {on} images of {report['dataset']['name']}: {figures['accuracy']:.2%}"
    plots.draw_confusion(folder / run_folder.CONFUSION, np.array(report["confusion"]["counts"]), card.labels, headline)
    worst = judgement.worst_mistakes(answers, labels, MISTAKES_SHOWN)
    captions = [f"{card.labels[labels[at]]} → {card.labels[answers[at].argmax()]}  {answers[at].max():.3f}" for at in worst]
    title = (
        f"The worst of {figures['n'] - figures['correct']:,} mistakes among {figures['n']:,} {on} images (true → answer, its probability)"
    )
    plots.draw_mistakes(folder / run_folder.MISTAKES, pixels[worst], captions, title)


def _draw_augmentations(path: Path, augmentation: Augmentation, pixels: Pixels, labels: Labels) -> None:
    """A row for each distortion alone, then rows of all together, as training sees them."""
    originals = pixels[_one_of_each(labels, IMAGES_AUGMENTED)]
    given = torch.from_numpy(originals)
    rows = {"original": originals.astype(np.float32)}
    if isinstance(augmentation, InTurn):
        rows |= {step.name: step(given).numpy() for step in augmentation.steps}
    rows |= {f"all together ({number})": augmentation(given).numpy() for number in range(1, VARIANTS + 1)}
    plots.draw_augmentations(path, rows, "What training sees: images, each distortion alone, and all together")


def _one_of_each(labels: Labels, most: int) -> list[int]:
    """Indices of images of as many different classes as there are, then of others."""
    firsts = [int((labels == each).argmax()) for each in np.unique(labels[labels != UNKNOWN])]
    others = [at for at in range(min(len(labels), most)) if at not in firsts]
    return (firsts + others)[:most]
