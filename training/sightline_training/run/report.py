"""The parts of report.json that are computed: how good the network is, and what its training took."""

import csv
import io
import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np

from sightline_training.datasets import Dataset
from sightline_training.datasets.image_set import Split
from sightline_training.environment import has_bfloat16
from sightline_training.loop.fit import Epoch, kept_epoch
from sightline_training.recipe import Recipe
from sightline_training.run import metrics as judgement
from sightline_training.run.metrics import Labels, Pixels, Probabilities


def judged(
    recipe: Recipe,
    images: Dataset,
    pixels: Mapping[Split, Pixels],
    labels: Mapping[Split, Labels],
    answers: Mapping[Split, Probabilities],
) -> dict[str, Any]:
    """The part of the report that says how good the network is."""
    on = images.judged.split
    figures: dict[str, Any] = {split: judgement.accuracy_figures(answers[split], labels[split]) for split in answers}
    known = [pixels[each.split] for each in images.splits if each.split != on]
    seen = judgement.seen_before(pixels[on], itertools.chain.from_iterable(known))
    near = np.isin(np.arange(len(seen)), sorted(images.near_duplicates))
    for name, left_out in (("without_seen", seen), ("without_near_duplicates", seen | near)):
        if left_out.any() and not left_out.all() and (name == "without_seen" or near.any()):
            figures[name] = judgement.accuracy_figures(answers[on][~left_out], labels[on][~left_out])
    # A recipe promises something for its own dataset only.
    promised = recipe.target_accuracy if images.name == recipe.data and figures[on] is not None else None
    matrix = judgement.confusion(answers[on], labels[on])
    return {
        "judged_on": on,
        "chosen_on": images.choosing.split if images.choosing is not None and recipe.stages else None,
        "accuracy": figures,
        "gap": figures["train"]["accuracy"] - figures[on]["accuracy"] if "train" in figures and figures[on] is not None else None,
        "target": {"accuracy": promised, "reached": None if promised is None else figures[on]["accuracy"] >= promised},
        "duplicates": {
            "seen": int(seen.sum()),
            "compared": "pixels after reformat, byte for byte, with those of the other splits",
            "near": int(near.sum()),
        },
        "remarks": list(images.remarks),
        # Where nobody knows what the images show, a thousand rows of zeros would only look like figures.
        "per_class": [] if figures[on] is None else judgement.per_class(matrix, recipe.card.labels),
        "confusion": None
        if figures[on] is None
        else {"rows": "true class", "columns": "answer", "labels": list(recipe.card.labels), "counts": matrix.tolist()},
    }


def taught(recipe: Recipe, history: list[Epoch], chooses: bool, device: str) -> dict[str, Any]:
    """Epochs, the kept one, wall and CPU seconds of all epochs, those before a kill included; where products were in bfloat16."""
    kept = kept_epoch(history, chooses) if history else {"stage": 0, "epoch": 0}
    return {
        "epochs": len(history),
        "kept_stage": int(kept["stage"]),
        "kept_epoch": int(kept["epoch"]),
        "seconds": round(sum(epoch["seconds"] for epoch in history), 2),
        "cpu_seconds": round(sum(epoch["cpu_seconds"] for epoch in history), 2),
        "precision": ["bfloat16" if stage.mixed_precision and has_bfloat16(device) else "float32" for stage in recipe.stages],
    }


def history_as_csv(history: list[Epoch]) -> str:
    """metrics.csv: one line an epoch, oldest first."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(history[0]), lineterminator="\n")
    writer.writeheader()
    for epoch in history:
        writer.writerow({name: int(value) if name in ("stage", "epoch") else f"{value:.6g}" for name, value in epoch.items()})
    return text.getvalue()
