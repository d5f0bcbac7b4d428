"""Trains a recipe from pictures to a finished run folder. The report is written last, so that a folder with one is complete."""

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import safetensors.torch
import torch

from sightline.card import ModelCard, seal
from sightline.errors import DataError, UsageError
from sightline_training import judgement, plots, provenance, run_folder
from sightline_training.batches import Memory, seed_of
from sightline_training.datasets import Dataset, open_dataset
from sightline_training.files import write_json, write_whole
from sightline_training.judgement import Labels, Pixels, Probabilities
from sightline_training.loop import Epoch, best_epoch, fit
from sightline_training.network import Answering, Network, probabilities
from sightline_training.pictures import PictureSet, Split
from sightline_training.progress import talk
from sightline_training.recipe import Recipe
from sightline_training.report import history_as_csv, judged, taught
from sightline_training.runs import CARD, REPORT, WEIGHTS, Run, load_run

Device = Literal["auto", "cpu", "gpu"]

MISTAKES_SHOWN: Final = 40
AUGMENTATIONS_SHOWN: Final = (5, 8)
"""Variants of so many pictures."""


@dataclass(frozen=True)
class Trained:
    """What came of `train`."""

    run: Run
    fresh: bool
    """False if the folder already held the finished run."""


def train(
    recipe: Recipe,
    folder: Path,
    *,
    dataset: str | None = None,
    data: Path | None = None,
    seed: int = 0,
    epochs: int | None = None,
    restart: bool = False,
    device: Device = "auto",
) -> Trained:
    """Train `recipe` into the run folder `folder`: begin, or continue what was interrupted there.

    `dataset` names another dataset than the recipe's own; `data` is the data folder. Raises UsageError if the folder holds a run
    with other settings, DataError if the pictures are missing or damaged.
    """
    if epochs is not None:
        recipe = recipe.with_epochs(epochs)
    settings = _settings(recipe, dataset or recipe.data, seed)
    with run_folder.claimed(folder):
        begun = run_folder.begun_with(folder)
        if restart:
            run_folder.clear(folder)
            begun = None
        if begun is not None:
            run_folder.demand_same(begun, settings, folder)
            if (folder / REPORT).is_file():
                return Trained(load_run(folder), fresh=False)
        chosen = _device(device)
        torch.set_num_threads(provenance.usable_threads())
        pictures = open_dataset(settings["dataset"], data)
        settings["fingerprints"] = {each.split: each.fingerprint for each in pictures.splits}
        if begun is None:
            write_json(folder / run_folder.SETTINGS, settings)
        else:
            run_folder.demand_same(begun, settings, folder)
            talk().print(f"continuing the run in {folder}")
        _fill(folder, recipe, pictures, settings, chosen)
        return Trained(load_run(folder), fresh=True)


def _settings(recipe: Recipe, dataset: str, seed: int) -> dict[str, Any]:
    return {
        "recipe": recipe.name,
        "augmented": recipe.augmentation is not None,
        "dataset": dataset,
        "seed": seed,
        "stages": [asdict(stage) for stage in recipe.stages],
        "augmentation": None if recipe.augmentation is None else repr(recipe.augmentation),
        "card_sha256": recipe.card.sha256,
    }


def _device(device: Device) -> Literal["cpu", "gpu"]:
    if device == "gpu" and not torch.cuda.is_available():
        raise UsageError("torch finds no GPU here. Leave out `--device gpu` to train on the CPU.")
    return "gpu" if device != "cpu" and torch.cuda.is_available() else "cpu"


def _fill(folder: Path, recipe: Recipe, pictures: Dataset, settings: dict[str, Any], device: Literal["cpu", "gpu"]) -> None:
    """Everything from pixels to the report."""
    card, seed = recipe.card, settings["seed"]
    labels = {each.split: _labels_of(each, card) for each in pictures.splits}
    pixels = {each.split: each.pixels(card.preprocess) for each in pictures.splits}

    torch.manual_seed(seed_of(seed, "weights"))
    network = Network(card, recipe.network(card))
    train_memory, valid_memory = Memory(pixels["train"], labels["train"]), Memory(pixels["valid"], labels["valid"])
    checkpoints = folder / run_folder.CHECKPOINTS
    history = fit(network, recipe, train_memory, valid_memory, seed=seed, device=device, checkpoints=checkpoints)

    weights = safetensors.torch.save({name: tensor.cpu().contiguous() for name, tensor in network.state_dict().items()})
    write_whole(folder / WEIGHTS, weights)
    write_whole(folder / CARD, seal(card))
    write_whole(folder / run_folder.METRICS, history_as_csv(history))

    # Judged where it is exported and compared: on the CPU.
    answering = Answering(network.cpu()).eval()
    answers = {split: probabilities(answering, pixels[split]) for split in pixels}
    report = {
        "recipe": recipe.name,
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        **judged(recipe, pictures.name, pixels, labels, answers),
        "seed": seed,
        "training": taught(history),
        "dataset": {
            "name": pictures.name,
            "splits": {each.split: {"n": len(each), "fingerprint": each.fingerprint} for each in pictures.splits},
        },
        "settings": settings,
        "card_sha256": card.sha256,
        "weights_sha256": sha256(weights).hexdigest(),
        "versions": provenance.versions(),
        "hardware": provenance.hardware(device),
    }
    _draw(folder, recipe, report, history, pixels, labels["test"], answers["test"])
    write_json(folder / REPORT, report)


def _labels_of(pictures: PictureSet, card: ModelCard) -> Labels:
    if not len(pictures) or pictures.labels.min() < 0 or pictures.labels.max() >= len(card.labels):
        where = f"{pictures.name}/{pictures.split}"
        raise DataError(f"{where}: expected pictures of classes 0 to {len(card.labels) - 1}, as the card of {card.name} names them.")
    return pictures.labels


def _draw(
    folder: Path,
    recipe: Recipe,
    report: dict[str, Any],
    history: list[Epoch],
    pixels: dict[Split, Pixels],
    labels: Labels,
    answers: Probabilities,
) -> None:
    card, test = recipe.card, report["accuracy"]["test"]
    plots.draw_curves(folder / run_folder.CURVES, history, best_epoch(history))
    headline = f"{card.name} on {test['n']:,} test pictures of {report['dataset']['name']}: {test['accuracy']:.2%}"
    plots.draw_confusion(folder / run_folder.CONFUSION, np.array(report["confusion"]["counts"]), card.labels, headline)
    worst = judgement.worst_mistakes(answers, labels, MISTAKES_SHOWN)
    captions = [f"{card.labels[labels[at]]} → {card.labels[answers[at].argmax()]}  {answers[at].max():.3f}" for at in worst]
    title = f"The worst of {test['n'] - test['correct']} mistakes among {test['n']:,} test pictures (true → answer, its probability)"
    plots.draw_mistakes(folder / run_folder.MISTAKES, pixels["test"][worst], captions, title)
    if recipe.augmentation is not None:
        torch.manual_seed(seed_of(report["seed"], "augmentations shown"))
        variants, count = AUGMENTATIONS_SHOWN
        originals = pixels["train"][:count]
        drawn = np.stack([recipe.augmentation(torch.from_numpy(originals)).numpy() for _ in range(variants)])
        title = "What training saw: pictures, and random distortions of them"
        plots.draw_augmentations(folder / run_folder.AUGMENTATIONS, originals, drawn, title)
