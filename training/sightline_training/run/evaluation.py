"""Computes what report.json says of a trained network and of its training."""

import csv
import io
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np

from sightline.batches import Probabilities
from sightline_training.datasets import Dataset
from sightline_training.datasets.image_set import Labels, Pixels, Split
from sightline_training.environment import Device, has_bfloat16
from sightline_training.loop.history import Epoch, kept_epoch
from sightline_training.recipe import Recipe
from sightline_training.run.metrics import accuracy_of, class_figures, confusion_counts, seen_before
from sightline_training.run.report import Accuracy, ClassFigures, Confusion, Duplicates, Target, TrainingFigures


class Figures(TypedDict):
    """The fields of `RunReport` that say how good the network is."""

    judged_on: Split
    chosen_on: Split | None
    accuracy: Mapping[str, Accuracy | None]
    gap: float | None
    target: Target
    duplicates: Duplicates
    remarks: tuple[str, ...]
    per_class: tuple[ClassFigures, ...]
    confusion: Confusion | None


@dataclass(frozen=True, eq=False)
class Evaluation:
    """A recipe's trained network on all images of a dataset."""

    recipe: Recipe
    dataset: Dataset
    pixels: Mapping[Split, Pixels]
    labels: Mapping[Split, Labels]
    probabilities: Mapping[Split, Probabilities]

    @property
    def judged_on(self) -> Split:
        """The split that the reported accuracy is counted on."""
        return self.dataset.judged.split

    def figures(self) -> Figures:
        """Return the fields of `RunReport` that say how good the network is."""
        judged_on, card = self.judged_on, self.recipe.card
        accuracy: dict[str, Accuracy | None] = {
            split: accuracy_of(probabilities, self.labels[split]) for split, probabilities in self.probabilities.items()
        }
        others = [self.pixels[images.split] for images in self.dataset.splits if images.split != judged_on]
        seen = seen_before(self.pixels[judged_on], itertools.chain.from_iterable(others))
        near = np.isin(np.arange(len(seen)), sorted(self.dataset.near_duplicates))
        for name, left_out in (("without_seen", seen), ("without_near_duplicates", seen | near)):
            if left_out.any() and not left_out.all() and (name == "without_seen" or near.any()):
                accuracy[name] = accuracy_of(self.probabilities[judged_on][~left_out], self.labels[judged_on][~left_out])
        judged, train = accuracy[judged_on], accuracy.get("train")
        # A recipe promises something for its own dataset only.
        target = self.recipe.target_accuracy if self.dataset.name == self.recipe.data and judged is not None else None
        counts = confusion_counts(self.probabilities[judged_on], self.labels[judged_on])
        return {
            "judged_on": judged_on,
            "chosen_on": self.dataset.choosing.split if self.dataset.choosing is not None and self.recipe.stages else None,
            "accuracy": accuracy,
            "gap": train.accuracy - judged.accuracy if train is not None and judged is not None else None,
            "target": Target(accuracy=target, reached=None if target is None or judged is None else judged.accuracy >= target),
            "duplicates": Duplicates(
                seen=int(seen.sum()),
                compared="pixels after reformat, byte for byte, with those of the other splits",
                near=int(near.sum()),
            ),
            "remarks": self.dataset.remarks,
            # Where nobody knows what the images show, a thousand rows of zeros would only look like figures.
            "per_class": () if judged is None else class_figures(counts, card.labels),
            "confusion": None
            if judged is None
            else Confusion(rows="true class", columns="answer", labels=card.labels, counts=tuple(map(tuple, counts.tolist()))),
        }


def training_figures(recipe: Recipe, history: Sequence[Epoch], chooses: bool, device: Device) -> TrainingFigures:
    """Return epochs, the kept one and the seconds of all epochs; and where products were in bfloat16."""
    kept = kept_epoch(history, chooses) if history else {"stage": 0, "epoch": 0}
    return TrainingFigures(
        epochs=len(history),
        kept_stage=int(kept["stage"]),
        kept_epoch=int(kept["epoch"]),
        seconds=round(sum(epoch["seconds"] for epoch in history), 2),
        cpu_seconds=round(sum(epoch["cpu_seconds"] for epoch in history), 2),
        precision=tuple("bfloat16" if stage.mixed_precision and has_bfloat16(device) else "float32" for stage in recipe.stages),
    )


def history_as_csv(history: Sequence[Epoch]) -> str:
    """Return the content of metrics.csv: one line an epoch, oldest first."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(history[0]), lineterminator="\n")
    writer.writeheader()
    for epoch in history:
        writer.writerow({name: int(value) if name in ("stage", "epoch") else f"{value:.6g}" for name, value in epoch.items()})
    return text.getvalue()
