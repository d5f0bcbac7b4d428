"""Trains a recipe from images to a finished run folder. The report is written last, so that a folder with one is complete."""

from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import numpy.typing as npt
import safetensors.torch
import torch
from numpy import float32

from sightline.card import ModelCard, seal
from sightline.errors import DataError, UsageError
from sightline_training import environment as provenance
from sightline_training.datasets import Dataset, open_dataset
from sightline_training.datasets.image_set import UNKNOWN, ImageSet, Split
from sightline_training.files import write_json, write_whole
from sightline_training.loop.allocator import keep_freed_memory
from sightline_training.loop.batches import Memory, seed_of
from sightline_training.loop.feature_cache import features_of
from sightline_training.loop.fit import Epoch, FeaturesOf, Watched, fit
from sightline_training.networks.backbones import Backbone, preprocess_of
from sightline_training.networks.weights import Weights, pour, weights_from
from sightline_training.networks.wrappers import Answering, Network, probabilities
from sightline_training.progress import talk
from sightline_training.recipe import Recipe
from sightline_training.run import figures as drawings
from sightline_training.run import folder as run_folder
from sightline_training.run.metrics import Labels, Pixels
from sightline_training.run.report import history_as_csv, judged, taught
from sightline_training.run.run import CARD, OWN_IMAGES, REPORT, SETTINGS, WEIGHTS, Run, load_run

Device = Literal["auto", "cpu", "gpu"]


@dataclass(frozen=True)
class Trained:
    """What came of `train`."""

    run: Run
    fresh: bool
    """False if the folder already held the finished run."""


@dataclass(frozen=True)
class _Pretrained:
    """What a network is built on."""

    backbone: Backbone
    weights: Weights


@dataclass(frozen=True)
class _Plan:
    """What a run will be, settled before an image is read."""

    recipe: Recipe
    pretrained: _Pretrained | None
    settings: dict[str, Any]


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
    backbone: str | None = None,
    weights: str | None = None,
    size: int | None = None,
    every_block: bool = False,
    name: str | None = None,
) -> Trained:
    """Train `recipe` into the run folder `folder`: begin, or continue what was interrupted there.

    `dataset` names another dataset than the recipe's own; `data` is the data folder, or that of the user's own images.
    `backbone`, `weights` (see `weights_from`), `size` (pixels a side) and `every_block` (whether the head sees what each block of the
    convolutional part makes, not the last one alone) are for recipes that build on a pre-trained network, `name` is the model's name
    on its card. Raises UsageError if an option does not fit or the folder holds a run with other settings,
    DataError if the images or weights are missing or damaged.
    """
    began = provenance.Stopwatch()
    images = None
    if recipe.own_images:
        if data is None:
            raise UsageError(f"`sightline train {recipe.name}` needs your images: name their folder with `--data DIR`.")
        data = data.resolve()
        images = open_dataset(recipe.data, data)
        recipe = recipe.with_card(labels=images.labels)
    plan = _planned(recipe, dataset or recipe.data, seed, epochs, backbone, weights, size, every_block, name)
    settings = plan.settings | ({} if images is None else _fingerprints(images))
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
        keep_freed_memory()
        images = images or open_dataset(settings["dataset"], data)
        settings |= _fingerprints(images)
        if begun is None:
            # Where a user's images lie is this machine's business: it stays out of the report, which is published.
            write_json(folder / SETTINGS, settings | ({OWN_IMAGES: str(data)} if recipe.own_images else {}))
        else:
            run_folder.demand_same(begun, settings, folder)
            talk().print(f"continuing the run in {folder}")
        _fill(folder, replace(plan, settings=settings), images, seed, chosen, began, resumed=begun is not None)
        return Trained(load_run(folder), fresh=True)


def _fingerprints(images: Dataset) -> dict[str, Any]:
    return {"fingerprints": {each.split: each.fingerprint for each in images.splits}}


def _planned(
    recipe: Recipe,
    dataset: str,
    seed: int,
    epochs: int | None,
    backbone: str | None,
    weights: str | None,
    size: int | None,
    every_block: bool,
    name: str | None,
) -> _Plan:
    """Fit the recipe to what was asked for, and write down all that decides the result."""
    if epochs is not None:
        recipe = recipe.with_epochs(epochs)
    if name is not None:
        recipe = recipe.with_card(name=name)
    pretrained = None
    if recipe.transfer is not None:
        found = weights_from(backbone or recipe.backbone, weights)
        pretrained = _Pretrained(Backbone(backbone or recipe.backbone, "blocks" if every_block else found.part), found)
        if found.of_run:
            recipe = replace(recipe, target_accuracy=recipe.target_on_run)
        recipe = recipe.with_preprocess(found.preprocess or preprocess_of(pretrained.backbone), size)
    else:
        for option, value in (("--backbone", backbone), ("--weights", weights), ("--size", size), ("--every-block", every_block or None)):
            if value is not None:
                raise UsageError(f"the recipe {recipe.name} is not built on a pre-trained network: leave out `{option}`.")
    settings = {
        "recipe": recipe.name,
        "augmented": recipe.augmentation is not None,
        "dataset": dataset,
        "seed": seed,
        "stages": [asdict(stage) for stage in recipe.stages],
        "augmentation": None if recipe.augmentation is None else repr(recipe.augmentation),
        "backbone": _described(pretrained),
        "card_sha256": recipe.card.sha256,
    }
    return _Plan(recipe, pretrained, settings)


def _described(pretrained: _Pretrained | None) -> dict[str, Any] | None:
    if pretrained is None:
        return None
    return {**asdict(pretrained.backbone), "source": pretrained.weights.source, "sha256": pretrained.weights.sha256}


def _device(device: Device) -> Literal["cpu", "gpu"]:
    if device == "gpu" and not torch.cuda.is_available():
        raise UsageError("torch finds no GPU here. Leave out `--device gpu` to train on the CPU.")
    return "gpu" if device != "cpu" and torch.cuda.is_available() else "cpu"


def _fill(
    folder: Path, plan: _Plan, images: Dataset, seed: int, device: Literal["cpu", "gpu"], began: provenance.Stopwatch, *, resumed: bool
) -> None:
    """Everything from pixels to the report."""
    recipe, card = plan.recipe, plan.recipe.card
    labels = {each.split: _labels_of(each, card) for each in images.splits}
    spilled = folder / run_folder.PIXELS
    spilled.mkdir(exist_ok=True)
    pixels = {each.split: each.pixels(card.preprocess, spill=spilled / f"{each.split}.npy") for each in images.splits}

    torch.manual_seed(seed_of(seed, "weights"))
    network = Network(card, recipe.build(card, None if plan.pretrained is None else plan.pretrained.backbone))
    if plan.pretrained is not None:
        pour(network.body, plan.pretrained.weights)
    history = _taught(network, plan, images, pixels, labels, seed, device, folder) if recipe.stages else []

    weights = safetensors.torch.save({name: tensor.cpu().contiguous() for name, tensor in network.state_dict().items()})
    write_whole(folder / WEIGHTS, weights)
    write_whole(folder / CARD, seal(card))
    if history:
        write_whole(folder / run_folder.METRICS, history_as_csv(history))

    # Judged where it is exported and compared: on the CPU.
    answering = Answering(network.cpu()).eval()
    answers = {split: probabilities(answering, pixels[split]) for split in pixels}
    report = {
        "recipe": recipe.name,
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        **judged(recipe, images, pixels, labels, answers),
        "seed": seed,
        "training": taught(recipe, history, images.choosing is not None, device),
        "dataset": {
            "name": images.name,
            "splits": {each.split: {"n": len(each), "fingerprint": each.fingerprint} for each in images.splits},
        },
        "backbone": plan.settings["backbone"],
        "settings": plan.settings,
        "card_sha256": card.sha256,
        "weights_sha256": sha256(weights).hexdigest(),
        "versions": provenance.versions(),
        "hardware": provenance.hardware(device),
        "process": {**began.read(), "resumed": resumed},
    }
    drawings.draw(folder, recipe, report, history, pixels, labels, answers)
    run_folder.drop_pixels(folder)
    write_json(folder / REPORT, report)


def _taught(
    network: Network,
    plan: _Plan,
    images: Dataset,
    pixels: dict[Split, Pixels],
    labels: dict[Split, Labels],
    seed: int,
    device: Literal["cpu", "gpu"],
    folder: Path,
) -> list[Epoch]:
    """Train the network through the recipe's stages."""
    on = (images.choosing or images.judged).split

    pretrained = plan.pretrained
    kept = None if pretrained is None else _kept_features(network, plan.recipe, pretrained, pixels["train"], pixels[on])
    return fit(
        network,
        plan.recipe,
        Memory(pixels["train"], labels["train"]),
        Watched(Memory(pixels[on], labels[on]), chooses=images.choosing is not None),
        seed=seed,
        device=device,
        checkpoints=folder / run_folder.CHECKPOINTS,
        features_of=kept,
    )


def _kept_features(network: Network, recipe: Recipe, pretrained: _Pretrained, train: Pixels, watched: Pixels) -> FeaturesOf:
    """What the frozen trunk makes of the images, kept on disk for the next run."""

    def features(of: Literal["train", "watched"], view: int) -> npt.NDArray[float32]:
        given = train if of == "train" else watched
        return features_of(network, pretrained.weights, pretrained.backbone, recipe, given, view)

    return features


def _labels_of(images: ImageSet, card: ModelCard) -> Labels:
    least = 0 if images.split == "train" else UNKNOWN
    if not len(images) or images.labels.min() < least or images.labels.max() >= len(card.labels):
        where = f"{images.name}/{images.split}"
        raise DataError(f"{where}: expected images of classes 0 to {len(card.labels) - 1}, as the card of {card.name} names them.")
    return images.labels
