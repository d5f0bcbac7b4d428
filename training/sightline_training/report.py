"""The parts of report.json that are computed: how good the network is, and what its training took."""

import csv
import io
from typing import Any

import numpy as np

from sightline_training import judgement
from sightline_training.judgement import Labels, Pixels, Probabilities
from sightline_training.loop import Epoch, best_epoch
from sightline_training.pictures import Split
from sightline_training.recipe import Recipe


def judged(
    recipe: Recipe, dataset: str, pixels: dict[Split, Pixels], labels: dict[Split, Labels], answers: dict[Split, Probabilities]
) -> dict[str, Any]:
    """The part of the report that says how good the network is."""
    figures: dict[str, Any] = {split: judgement.accuracy_figures(answers[split], labels[split]) for split in answers}
    seen = judgement.seen_before(pixels["test"], np.concatenate([pixels["train"], pixels["valid"]]))
    if not seen.all():
        figures["test_without_seen"] = judgement.accuracy_figures(answers["test"][~seen], labels["test"][~seen])
    matrix = judgement.confusion(answers["test"], labels["test"])
    # A recipe promises something for its own dataset only.
    promised = recipe.target_accuracy if dataset == recipe.data else None
    return {
        "accuracy": figures,
        "target": {"accuracy": promised, "reached": None if promised is None else figures["test"]["accuracy"] >= promised},
        "duplicates": {"test_pictures_also_in_train_or_valid": int(seen.sum()), "compared": "pixels after reformat, byte for byte"},
        "per_class": judgement.per_class(matrix, recipe.card.labels),
        "confusion": {"rows": "true class", "columns": "answer", "labels": list(recipe.card.labels), "counts": matrix.tolist()},
    }


def taught(history: list[Epoch]) -> dict[str, Any]:
    """Epochs, the kept one, wall and CPU seconds of all epochs, those before a kill included."""
    best = best_epoch(history)
    return {
        "epochs": len(history),
        "kept_stage": int(best["stage"]),
        "kept_epoch": int(best["epoch"]),
        "seconds": round(sum(epoch["seconds"] for epoch in history), 2),
        "cpu_seconds": round(sum(epoch["cpu_seconds"] for epoch in history), 2),
    }


def history_as_csv(history: list[Epoch]) -> str:
    """metrics.csv: one line an epoch, oldest first."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(history[0]), lineterminator="\n")
    writer.writeheader()
    for epoch in history:
        writer.writerow({name: int(value) if name in ("stage", "epoch") else f"{value:.6g}" for name, value in epoch.items()})
    return text.getvalue()
