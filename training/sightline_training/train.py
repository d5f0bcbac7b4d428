"""Trains a recipe from images to a finished run folder. The report is written last, so that a folder with one is complete."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Literal

import numpy.typing as npt
import safetensors.torch
import torch
from numpy import float32

from sightline.card import ModelCard, seal
from sightline.console import messages
from sightline.errors import DataError, MachineError
from sightline.host.files import reason_of, write_atomically
from sightline_training.datasets import Dataset, open_dataset
from sightline_training.datasets.image_set import UNKNOWN, ImageSet, Labels, Pixels, Split
from sightline_training.datasets.remarks import remarks_on
from sightline_training.environment import Device, Stopwatch, hardware, peak_memory_bytes, usable_threads, versions
from sightline_training.loop.allocator import keep_freed_memory
from sightline_training.loop.batches import Memory, seed_of
from sightline_training.loop.feature_cache import FeatureSource
from sightline_training.loop.fit import FeaturesOf, FitSettings, Watched, fit
from sightline_training.loop.history import Epoch
from sightline_training.networks.weights import load_weights
from sightline_training.networks.wrappers import Answering, Network, probabilities_of
from sightline_training.plan import Plan, planned, with_own_images
from sightline_training.recipe import Recipe
from sightline_training.run.evaluation import Evaluation, history_as_csv, training_figures
from sightline_training.run.figures import draw_figures
from sightline_training.run.folder import (
    CARD,
    CHECKPOINTS,
    METRICS,
    PIXELS,
    REPORT,
    WEIGHTS,
    begin,
    begun_with,
    claimed,
    clear,
    demand_same,
    drop_pixels,
    sweep,
)
from sightline_training.run.report import (
    DatasetFigures,
    Process,
    RunReport,
    SplitFigures,
    write_report,
)
from sightline_training.run.run import Run, load_run
from sightline_training.settings import DeviceChoice, TrainSettings


@dataclass(frozen=True, eq=False)
class TrainResult:
    """A finished run, and whether `train` made it now."""

    run: Run
    fresh: bool
    """False if the folder already held the finished run."""


def train(recipe: Recipe, folder: Path, settings: TrainSettings | None = None) -> TrainResult:
    """Train `recipe` into the run folder `folder`: begin, or continue what was interrupted there.

    Raises UsageError if a setting does not fit the recipe or the folder holds a run with other settings, DataError if the images or
    weights are missing or damaged, MachineError if the folder cannot be written or there is no GPU that was asked for.
    """
    settings = settings or TrainSettings()
    stopwatch = Stopwatch()
    recipe, own_images, dataset = with_own_images(recipe, settings)
    plan = planned(recipe, settings)
    if dataset is not None:
        plan = plan.with_images(dataset)
    with claimed(folder), _disk_errors_named(folder):
        begun = begun_with(folder)
        sweep(folder)
        if settings.restart:
            clear(folder)
            begun = None
        if begun is not None:
            demand_same(begun, plan.settings, folder)
            if (folder / REPORT).is_file():
                return TrainResult(load_run(folder), fresh=False)
        device = _device(settings.device)
        torch.set_num_threads(usable_threads())
        keep_freed_memory()
        dataset = dataset or open_dataset(plan.settings.dataset, settings.data)
        plan = plan.with_images(dataset)
        if begun is None:
            begin(folder, plan.settings, own_images)
        else:
            demand_same(begun, plan.settings, folder)
            messages().print(f"continuing the run in {folder}")
        _Training(plan, folder, _remarked(dataset, plan.recipe.card), device).run(stopwatch, resumed=begun is not None)
        return TrainResult(load_run(folder), fresh=True)


@dataclass(frozen=True, eq=False)
class _Training:
    """Everything from pixels to the report."""

    plan: Plan
    folder: Path
    dataset: Dataset
    device: Device

    def run(self, stopwatch: Stopwatch, *, resumed: bool) -> None:
        """Train what is still to be trained, evaluate it on every image, and write the files of the run."""
        plan, folder, recipe, card = self.plan, self.folder, self.plan.recipe, self.plan.recipe.card
        labels = {images.split: _labels_of(images, card) for images in self.dataset.splits}
        pixels = self._reformatted(card)

        torch.manual_seed(seed_of(plan.settings.seed, "weights"))
        network = Network(card, recipe.build(card, plan.backbone))
        if plan.weights is not None:
            load_weights(network.body, plan.weights)
        history = self._fit(network, pixels, labels) if recipe.stages else []

        weights = safetensors.torch.save({name: tensor.cpu().contiguous() for name, tensor in network.state_dict().items()})
        write_atomically(folder / WEIGHTS, weights)
        write_atomically(folder / CARD, seal(card))
        if history:
            write_atomically(folder / METRICS, history_as_csv(history))

        # Evaluated where it is exported and compared: on the CPU.
        answering = Answering(network.cpu()).eval()
        probabilities = {split: probabilities_of(answering, pixels[split]) for split in pixels}
        evaluation = Evaluation(recipe, self.dataset, pixels, labels, probabilities)
        report = RunReport(
            recipe=recipe.name,
            written=datetime.now(UTC).isoformat(timespec="seconds"),
            **evaluation.figures(),
            seed=plan.settings.seed,
            training=training_figures(recipe, history, self.dataset.choosing is not None, self.device),
            dataset=DatasetFigures(
                name=self.dataset.name,
                splits={images.split: SplitFigures(n=len(images), fingerprint=images.fingerprint) for images in self.dataset.splits},
            ),
            backbone=plan.settings.backbone,
            settings=plan.settings,
            card_sha256=card.sha256,
            weights_sha256=sha256(weights).hexdigest(),
            versions=versions(),
            hardware=hardware(self.device),
            process=Process(
                seconds=stopwatch.seconds,
                cpu_seconds=stopwatch.cpu_seconds,
                peak_memory_bytes=peak_memory_bytes(),
                resumed=resumed,
            ),
        )
        draw_figures(folder, evaluation, report, history)
        drop_pixels(folder)
        write_report(folder / REPORT, report)

    def _reformatted(self, card: ModelCard) -> dict[Split, Pixels]:
        """Return the pixels of each split; those that are too many for the memory lie in the run folder meanwhile."""
        folder = self.folder / PIXELS
        folder.mkdir(exist_ok=True)
        return {images.split: images.pixels(card.preprocess, spill=folder / f"{images.split}.npy") for images in self.dataset.splits}

    def _fit(self, network: Network, pixels: Mapping[Split, Pixels], labels: Mapping[Split, Labels]) -> list[Epoch]:
        """Train the network through the recipe's stages."""
        watched = (self.dataset.choosing or self.dataset.judged).split
        return fit(
            network,
            self.plan.recipe,
            Memory(pixels["train"], labels["train"]),
            Watched(Memory(pixels[watched], labels[watched]), chooses=self.dataset.choosing is not None),
            FitSettings(seed=self.plan.settings.seed, device=self.device, checkpoints=self.folder / CHECKPOINTS),
            self._features(network, pixels["train"], pixels[watched]),
        )

    def _features(self, network: Network, train: Pixels, watched: Pixels) -> FeaturesOf | None:
        """Return what gives the frozen trunk's features of the images, kept on disk for the next run; None without a backbone."""
        if self.plan.backbone is None or self.plan.weights is None:
            return None
        source = FeatureSource(network, self.plan.backbone, self.plan.weights, self.plan.recipe)

        def features_of(images: Literal["train", "watched"], view: int) -> npt.NDArray[float32]:
            return source.features(train if images == "train" else watched, view)

        return features_of


def _device(choice: DeviceChoice) -> Device:
    if choice == "gpu" and not torch.cuda.is_available():
        raise MachineError("torch finds no GPU here. Leave out the choice of a device to train on the CPU.", settings=("device",))
    return "gpu" if choice != "cpu" and torch.cuda.is_available() else "cpu"


def _remarked(dataset: Dataset, card: ModelCard) -> Dataset:
    """Return the dataset with remarks on how its images look, for the report; they are told now, before hours go into the training."""
    remarks = remarks_on(dataset, card.labels)
    for remark in remarks:
        messages().print(f"note: {remark}")
    return replace(dataset, remarks=(*dataset.remarks, *remarks))


def _labels_of(images: ImageSet, card: ModelCard) -> Labels:
    lowest = 0 if images.split == "train" else UNKNOWN
    if not len(images) or images.labels.min() < lowest or images.labels.max() >= len(card.labels):
        where = f"{images.name}/{images.split}"
        raise DataError(f"{where}: expected images of classes 0 to {len(card.labels) - 1}, as the card of {card.name} names them.")
    return images.labels


@contextmanager
def _disk_errors_named(folder: Path) -> Iterator[None]:
    """Raise MachineError, with the way out, for what the disk refuses while a run is written."""
    try:
        yield
    except BrokenPipeError:
        raise  # of whoever reads what is printed
    except OSError as error:
        raise MachineError(
            f"the run folder {folder} cannot be written: {reason_of(error)}. Make room and run the same command again: it continues."
        ) from None
