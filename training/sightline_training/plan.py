"""Settles what a run will be before an image is read: the recipe fitted to the settings, its backbone, and all that decides the result."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Self

from sightline.errors import UsageError
from sightline_training.datasets import DATASETS, Dataset, open_dataset
from sightline_training.networks.backbones import Backbone, preprocess_of
from sightline_training.networks.weights import Weights, weights_from
from sightline_training.recipe import Recipe
from sightline_training.run.report import BackboneFigures, RunSettings
from sightline_training.settings import TrainSettings


@dataclass(frozen=True, eq=False)
class Plan:
    """What a run will be, settled before an image is read."""

    recipe: Recipe
    backbone: Backbone | None
    weights: Weights | None
    """Both None if the network is made from nothing."""
    settings: RunSettings

    def with_images(self, dataset: Dataset) -> Self:
        """Return the plan with the fingerprints of its images."""
        fingerprints = {images.split: images.fingerprint for images in dataset.splits}
        return replace(self, settings=self.settings.model_copy(update={"fingerprints": fingerprints}))


def planned(recipe: Recipe, settings: TrainSettings) -> Plan:
    """Fit the recipe to the settings, and write down all that decides the result. Raises UsageError for settings that do not fit it."""
    dataset = settings.dataset or recipe.data
    if dataset not in DATASETS:
        raise UsageError(f"there is no dataset {dataset!r:.80}. Known: {', '.join(sorted(DATASETS))}.", settings=("dataset",))
    if settings.epochs is not None:
        recipe = recipe.with_epochs(settings.epochs)
    if settings.name is not None:
        recipe = recipe.with_card(name=settings.name)
    backbone = weights = None
    if recipe.transfer is not None:
        name = settings.backbone or recipe.backbone
        weights = weights_from(name, settings.weights, entry=settings.weights_key)
        backbone = Backbone(name, "blocks" if settings.every_block else weights.part)
        if weights.of_run:
            recipe = replace(recipe, target_accuracy=recipe.target_on_run)
        recipe = recipe.with_preprocess(weights.preprocess or preprocess_of(backbone), settings.size)
    elif settings.of_backbone:
        misplaced = settings.of_backbone[0]
        raise UsageError(f"the recipe {recipe.name} is not built on a pre-trained network: leave out {misplaced}.", settings=(misplaced,))
    return Plan(recipe, backbone, weights, _run_settings(recipe, dataset, settings.seed, backbone, weights))


def with_own_images(recipe: Recipe, settings: TrainSettings) -> tuple[Recipe, Path | None, Dataset | None]:
    """Return the recipe with the labels of the user's own images, their folder and them, if it is trained on such; else as it is."""
    if not recipe.own_images:
        return recipe, None, None
    if settings.data is None:
        raise UsageError(f"the recipe {recipe.name} is trained on your own images: name their folder.", settings=("data",))
    folder = settings.data.resolve()
    dataset = open_dataset(recipe.data, folder)
    return recipe.with_card(labels=dataset.labels), folder, dataset


def _run_settings(recipe: Recipe, dataset: str, seed: int, backbone: Backbone | None, weights: Weights | None) -> RunSettings:
    return RunSettings(
        recipe=recipe.name,
        # Other pens alone are the plain recipe of what has an augmented one too.
        augmented=recipe.augmentation is not None and recipe.augmented is None,
        dataset=dataset,
        seed=seed,
        stages=tuple(asdict(stage) for stage in recipe.stages),
        augmentation=None if recipe.augmentation is None else repr(recipe.augmentation),
        backbone=None
        if backbone is None or weights is None
        else BackboneFigures(name=backbone.name, part=backbone.part, source=weights.source, sha256=weights.sha256),
        card_sha256=recipe.card.sha256,
    )
